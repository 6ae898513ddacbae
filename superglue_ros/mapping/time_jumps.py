"""Distinguish backward time jumps, as when a bag starts over, from messages out of order."""

from __future__ import annotations

from collections.abc import Hashable

JUMP_NS = 500_000_000
"""A step back of at least this is a time jump; a smaller one is a message out of order."""


class TimeJumps:
    """Tracks the stamps of several sources separately. ``count``: jumps so far."""

    def __init__(self) -> None:
        self.count = 0
        self._newest: dict[Hashable, int] = {}

    def newest_ns(self, source: Hashable = 0) -> int | None:
        """The newest stamp of ``source`` since it last jumped, None before its first."""
        return self._newest.get(source)

    def behind_ns(self, stamp_ns: int, source: Hashable = 0) -> int:
        """How far a stamp lies before the newest of its source; 0 if it is newer."""
        return max(0, self._newest.get(source, stamp_ns) - stamp_ns)

    def passed(self, stamp_ns: int, source: Hashable = 0) -> bool:
        """Record the next stamp of a source; True if time jumped backwards to it."""
        behind = self.behind_ns(stamp_ns, source)
        jumped = behind >= JUMP_NS
        if jumped or not behind:
            self._newest[source] = stamp_ns
        self.count += jumped
        return jumped

    def forget(self) -> None:
        """Accept any stamp next; ``count`` is kept."""
        self._newest.clear()
