"""The part of ROS's ``message_filters`` that superglue_ros uses, for environments without it.

Same names, same arguments, same behaviour: ``test/compat/test_message_filters_contract.py`` passes
unchanged against the real package. Left out are ``Cache`` and messages
without a header.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter", "Subscriber", "TimeSynchronizer"]

NANOSECONDS = 1_000_000_000


def _stamp_ns(message: Any) -> int:
    """Return the header's stamp in nanoseconds."""
    return int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)


class SimpleFilter:
    """Something that passes messages on to the callbacks registered with it."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Call ``cb`` with every output, followed by ``args``; returns the connection's number."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Pass an output on."""
        for callback, arguments in self.callbacks.values():
            callback(*msg, *arguments)


class Subscriber(SimpleFilter):
    """A subscription as the source of a chain of filters.

    Takes the arguments of ``Node.create_subscription`` but the callback:
    ``Subscriber(node, msg_type, topic, qos_profile=10, ...)``. Attributes of the subscription can
    be read from the filter.
    """

    def __init__(self, node: Any, msg_type: Any, topic: str, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        if not args:
            kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.callback, *args, **kwargs)

    def callback(self, msg: Any) -> None:
        """Take a message from the subscription."""
        self.signalMessage(msg)

    def getTopic(self) -> str:
        """Return the topic as it was given."""
        return self.topic

    def __getattr__(self, name: str) -> Any:
        if name == "sub":  # not subscribed yet
            raise AttributeError(name)
        return getattr(self.sub, name)


class TimeSynchronizer(SimpleFilter):
    """Passes on sets of messages, one of each input, with exactly the same stamp.

    Of each input the ``queue_size`` newest messages (by stamp) wait for their partners. Callbacks
    run while the lock is held, so they must not wait for another input, nor raise.
    """

    def __init__(self, fs: Iterable[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(list(fs))

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        """Take the messages of these filters."""
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int) -> None:
        """Take a message of one input, and pass on the set that it completes."""
        with self.lock:
            stamp = _stamp_ns(msg)
            my_queue[stamp] = msg
            while len(my_queue) > self.queue_size:
                del my_queue[min(my_queue)]
            if stamp in my_queue:
                self._match(stamp, my_queue_index)

    def _match(self, stamp: int, index: int) -> None:
        if all(stamp in queue for queue in self.queues):
            self._pass_on([stamp] * len(self.queues))

    def _pass_on(self, stamps: Sequence[int]) -> None:
        """Remove one message from each queue and signal them."""
        self.signalMessage(*(queue[s] for queue, s in zip(self.queues, stamps, strict=True)))
        for queue, stamp in zip(self.queues, stamps, strict=True):
            del queue[stamp]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Passes on sets of messages, one of each input, whose stamps span less than ``slop`` seconds.

    A new message is joined with the messages nearest in time that are still waiting.
    """

    def __init__(self, fs: Iterable[SimpleFilter], queue_size: int, slop: float) -> None:
        self.slop_ns = int(slop * NANOSECONDS)
        super().__init__(fs, queue_size)

    def _match(self, stamp: int, index: int) -> None:
        candidates = [
            [stamp]
            if other == index
            else sorted(
                (s for s in queue if abs(s - stamp) <= self.slop_ns),
                key=lambda s: abs(s - stamp),
            )
            for other, queue in enumerate(self.queues)
        ]
        for stamps in itertools.product(*candidates):
            if max(stamps) - min(stamps) < self.slop_ns:
                self._pass_on(stamps)
                return
