"""Tell backward time jumps, as when a bag starts over, from disorder and single wrong stamps.

A stamp says little by itself: the line of those before it decides. A step back is a jump where it
is longer than the stamps' own steps explain, or where later stamps go on from there. A leap forward
is kept in doubt: where the next stamp continues the old line, the leap was one wrong stamp.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

JUMP_NS = 500_000_000
"""A step back of at least this may be a time jump; a smaller one is a message out of order."""
LEAP_NS = 10_000_000_000
"""A step forward of at least this is in doubt until the next stamp."""
_STEPS = 3  # a step back of fewer usual steps is disorder: neighbours that changed places
_RUN = 2  # late stamps in a row, each after the one before, that make a jump all the same


@dataclass
class _Line:
    """The stamps of one source: ``before`` is the newest before a leap in doubt, ``step`` the
    smaller of the last two steps, ``run`` the late stamps in a row and ``late`` the last of them.
    """

    newest: int
    before: int | None = None
    step: int = 0
    last_step: int = 0
    run: int = 0
    late: int = 0

    def reference(self, stamp_ns: int) -> int:
        """The newest stamp of the line that ``stamp_ns`` continues."""
        if self.before is not None and abs(stamp_ns - self.before) < self.newest - stamp_ns:
            return self.before
        return self.newest


class TimeJumps:
    """Tracks the stamps of several sources separately. ``count``: jumps so far."""

    def __init__(self) -> None:
        self.count = 0
        self._lines: dict[Hashable, _Line] = {}

    def newest_ns(self, source: Hashable = 0) -> int | None:
        """The newest stamp of ``source`` since it last jumped, None before its first."""
        line = self._lines.get(source)
        return None if line is None else line.newest

    def behind_ns(self, stamp_ns: int, source: Hashable = 0) -> int:
        """How far a stamp lies before the newest of the line it continues; 0 if it is newer."""
        line = self._lines.get(source)
        return 0 if line is None else max(0, line.reference(stamp_ns) - stamp_ns)

    def leaps(self, stamp_ns: int, source: Hashable = 0) -> bool:
        """Whether a stamp lies so far after the newest of its source that it is in doubt."""
        line = self._lines.get(source)
        return line is not None and stamp_ns - line.newest >= LEAP_NS

    def passed(self, stamp_ns: int, source: Hashable = 0) -> bool:
        """Record the next stamp of a source; True if time jumped backwards to it."""
        line = self._lines.get(source)
        if line is None:
            self._lines[source] = _Line(newest=stamp_ns)
            return False
        reference = line.reference(stamp_ns)
        if reference != line.newest:  # the leap was one wrong stamp
            line.newest = reference
        step = stamp_ns - line.newest
        if step >= 0:
            line.before = line.newest if step >= LEAP_NS else None
            if step < LEAP_NS:
                line.step, line.last_step = min(step, line.last_step or step), step
            line.newest, line.run = stamp_ns, 0
            return False
        line.run = line.run + 1 if line.run and stamp_ns > line.late else 1
        line.late = stamp_ns
        if -step < JUMP_NS or (-step <= _STEPS * line.step and line.run < _RUN):
            return False
        self._lines[source] = _Line(newest=stamp_ns)
        self.count += 1
        return True

    def forget(self) -> None:
        """Accept any stamp next; ``count`` is kept."""
        self._lines.clear()
