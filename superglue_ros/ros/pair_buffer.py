"""Joins the two messages that the matcher publishes for a pair of frames."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from superglue_ros.types import FrameId, Matches, RelativePose


class PairBuffer:
    """Joins the two messages of a pair of frames, in either order.

    At most ``limit`` messages wait for their partner; a newer one replaces the oldest.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._waiting: OrderedDict[tuple[FrameId, FrameId, type], Any] = OrderedDict()

    def add(self, half: Matches | RelativePose) -> tuple[Matches, RelativePose] | None:
        """The complete pair, if ``half`` was the missing one."""
        other = RelativePose if isinstance(half, Matches) else Matches
        partner = self._waiting.pop((half.reference, half.query, other), None)
        if partner is None:
            self._waiting[half.reference, half.query, type(half)] = half
            if len(self._waiting) > self._limit:
                self._waiting.popitem(last=False)
            return None
        return (half, partner) if isinstance(half, Matches) else (partner, half)
