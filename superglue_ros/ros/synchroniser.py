"""The messages of one image, brought together by stamp, every message accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer

from superglue_ros.ros.convert import stamp_to_ns


class Synchroniser:
    """A synchroniser of message_filters that counts what never met, and survives time jumps.

    message_filters drops the smallest stamps of a full queue. After time jumped backwards these
    would be the new ones, for ever: what is left from before the jump has to go.

    ``slop`` in seconds, None = stamps must be equal. ``on_set`` takes one message per input in
    their order; it runs under message_filters' lock and must not raise.
    """

    def __init__(
        self,
        inputs: int,
        on_set: Callable[[Sequence[Any]], None],
        *,
        slop: float | None,
        queue: int,
    ) -> None:
        self.unsynchronised = 0
        self._on_set = on_set
        self._slop = slop
        self._queue = queue
        self._pending: list[dict[int, Any]] = [{} for _ in range(inputs)]
        self._newest: list[int | None] = [None] * inputs
        self._connect()

    def newest_ns(self, index: int) -> int | None:
        """Stamp of the last message of an input."""
        return self._newest[index]

    def add(self, index: int, message: Any) -> None:
        """Take a message of input ``index``; calls ``on_set`` when it completes a set."""
        stamp = stamp_to_ns(message.header.stamp)
        newest = self._newest[index]
        if newest is not None and stamp < newest:
            # Halfway between now and then: what other inputs sent after the jump stays.
            self._forget_after((stamp + newest) // 2)
        self._newest[index] = stamp
        pending = self._pending[index]
        self.unsynchronised += stamp in pending
        pending[stamp] = message
        while len(pending) > self._queue:
            del pending[min(pending)]
            self.unsynchronised += 1
        self._inlets[index].signalMessage(message)

    def clear(self) -> None:
        """Drop all that waits for partners."""
        for pending in self._pending:
            self.unsynchronised += len(pending)
            pending.clear()
        self._newest = [None] * len(self._pending)
        self._connect()

    def _connect(self) -> None:
        self._inlets = [SimpleFilter() for _ in self._pending]
        if self._slop is None:
            synchroniser = TimeSynchronizer(self._inlets, self._queue)
        else:
            synchroniser = ApproximateTimeSynchronizer(self._inlets, self._queue, self._slop)
        synchroniser.registerCallback(self._complete)

    def _complete(self, *messages: Any) -> None:
        for pending, message in zip(self._pending, messages, strict=True):
            pending.pop(stamp_to_ns(message.header.stamp), None)
        self._on_set(messages)

    def _forget_after(self, latest_ns: int) -> None:
        for pending in self._pending:
            stale = [stamp for stamp in pending if stamp > latest_ns]
            self.unsynchronised += len(stale)
            for stamp in stale:
                del pending[stamp]
        self._connect()
        for inlet, pending in zip(self._inlets, self._pending, strict=True):
            for message in list(pending.values()):
                inlet.signalMessage(message)
