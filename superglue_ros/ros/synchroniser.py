"""Synchronises the messages of one image by stamp; every message is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer

from superglue_ros.data.message_reading import stamp_to_ns
from superglue_ros.mapping.time_jumps import LEAP_NS, TimeJumps

OnSet = Callable[[Sequence[Any]], None]


class Synchroniser:
    """A message_filters synchroniser that counts unmatched messages and handles time jumps.

    message_filters drops the smallest stamps of a full queue: after time jumped backwards these
    would always be the new ones. So a new synchroniser is made at each jump, and an input's
    messages go to it once that input has jumped. Inputs may jump one after the other; the old
    synchroniser is dropped when all have jumped.

    A message whose stamp leaps forward is held back until another one, of this input or of another,
    comes from the same time: a single wrong stamp would take all that follow it for a jump back.

    ``slop`` in seconds, None = stamps must be equal. ``on_set`` takes one message per input in
    their order; it runs under message_filters' lock and must not raise.
    """

    def __init__(self, inputs: int, on_set: OnSet, *, slop: float | None, queue: int) -> None:
        self._gone = 0
        self._held: dict[int, tuple[int, Any]] = {}
        self._make_pass = lambda: _Pass(inputs, on_set, slop, queue)
        self._time = TimeJumps()
        self._passes = [self._make_pass()]
        self._pass_of = [self._passes[0]] * inputs

    @property
    def unsynchronised(self) -> int:
        """Messages dropped without partners."""
        return self._gone + sum(one.dropped for one in self._passes)

    def newest_ns(self, index: int) -> int | None:
        """Stamp of the last message of an input."""
        return self._time.newest_ns(index)

    def add(self, index: int, message: Any) -> None:
        """Take a message of input ``index``; calls ``on_set`` when it completes a set."""
        stamp = stamp_to_ns(message.header.stamp)
        if len(self._pass_of) > 1 and self._time.leaps(stamp, index):
            if not self._confirmed(stamp, index):
                self._gone += index in self._held
                self._held[index] = stamp, message
                return
            held, self._held = self._held, {}
            for other, (earlier, waiting) in held.items():
                if abs(earlier - stamp) < LEAP_NS:
                    self._take(other, earlier, waiting)
                else:
                    self._gone += 1
        elif self._held.pop(index, None) is not None:
            self._gone += 1  # the stamp before this one was wrong
        self._take(index, stamp, message)

    def _confirmed(self, stamp: int, index: int) -> bool:
        """Whether another message comes from the time that a stamp leaps to."""
        others = [self._time.newest_ns(i) for i in range(len(self._pass_of)) if i != index]
        others += [earlier for earlier, _ in self._held.values()]
        return any(other is not None and abs(other - stamp) < LEAP_NS for other in others)

    def _take(self, index: int, stamp: int, message: Any) -> None:
        if self._time.newest_ns(index) is None:
            self._pass_of[index] = self._passes[-1]
        if self._time.passed(stamp, index):
            following = self._passes.index(self._pass_of[index]) + 1
            if following == len(self._passes):
                self._passes.append(self._make_pass())
            self._pass_of[index] = self._passes[following]
        if self._pass_of[index].add(index, stamp, message):
            # Its queue overflowed: inputs that have not followed by now missed the jump.
            self._pass_of = [self._passes[-1]] * len(self._pass_of)
        while self._passes[0] not in self._pass_of:
            self._retire(self._passes.pop(0))

    def clear(self) -> None:
        """Drop all waiting messages."""
        for one in self._passes:
            self._retire(one)
        self._time.forget()
        self._gone += len(self._held)
        self._held.clear()
        self._passes = [self._make_pass()]
        self._pass_of = [self._passes[0]] * len(self._pass_of)

    def _retire(self, one: _Pass) -> None:
        self._gone += one.dropped + one.waiting


class _Pass:
    """Messages between two time jumps. ``dropped`` counts those without partners."""

    def __init__(self, inputs: int, on_set: OnSet, slop: float | None, queue: int) -> None:
        self.dropped = 0
        self._on_set = on_set
        self._queue = queue
        self._pending: list[set[int]] = [set() for _ in range(inputs)]
        self._inlets = [SimpleFilter() for _ in range(inputs)]
        if slop is None:
            synchroniser = TimeSynchronizer(self._inlets, queue)
        else:
            synchroniser = ApproximateTimeSynchronizer(self._inlets, queue, slop)
        synchroniser.registerCallback(self._complete)

    @property
    def waiting(self) -> int:
        """Messages waiting for partners."""
        return sum(len(stamps) for stamps in self._pending)

    def add(self, index: int, stamp: int, message: Any) -> bool:
        """Add a message, drop those that message_filters drops; True if the queue overflowed."""
        pending = self._pending[index]
        self.dropped += stamp in pending  # the newer of two with one stamp stays
        pending.add(stamp)
        full = len(pending) > self._queue
        if full:
            pending.remove(min(pending))
            self.dropped += 1
        self._inlets[index].signalMessage(message)
        return full

    def _complete(self, *messages: Any) -> None:
        for pending, message in zip(self._pending, messages, strict=True):
            pending.discard(stamp_to_ns(message.header.stamp))
        self._on_set(messages)
