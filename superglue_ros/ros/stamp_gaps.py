"""Counts the messages that are missing between the stamps of an input."""

from __future__ import annotations

from collections import deque

import numpy as np

PAUSE_NS = 5_000_000_000
"""A longer step is a pause, in which nothing is missing."""
_STEPS = 32
_LEARNED = 8  # steps before the period counts as known
_QUANTILE = 0.25


class StampGaps:
    """Learns the period of the stamps and counts those that it says are missing.

    The period is the lower quartile of the last steps: it holds as long as a quarter of the
    messages follow the one before them, and adapts where the rate changes.
    """

    def __init__(self) -> None:
        self.missing = 0
        self.newest_ns: int | None = None
        self._steps: deque[int] = deque(maxlen=_STEPS)

    @property
    def period_s(self) -> float | None:
        """Seconds; None until it is known."""
        if len(self._steps) < _LEARNED:
            return None
        return float(np.quantile(self._steps, _QUANTILE)) * 1e-9

    def add(self, stamp_ns: int) -> None:
        """Take the stamp of the next message."""
        before, self.newest_ns = self.newest_ns, stamp_ns
        step = 0 if before is None else stamp_ns - before
        if not 0 < step <= PAUSE_NS:  # out of order, a jump in time, a wrong stamp or a pause
            return
        period = self.period_s
        if period is not None:
            self.missing += max(0, round(step * 1e-9 / period) - 1)
        self._steps.append(step)
