"""How long the stages of a frame take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class StageSeconds:
    """Wall time of the stages of one frame, in seconds."""

    extract: float
    match: float
    geometry: float

    @property
    def total(self) -> float:
        """All stages together, in seconds."""
        return self.extract + self.match + self.geometry


class StageClock:
    """Accumulates the wall time of the stages of one frame, from ``start`` on."""

    def __init__(self, start: StageSeconds | None = None) -> None:
        start = start or StageSeconds(0.0, 0.0, 0.0)
        self._seconds = {
            "extract": start.extract,
            "match": start.match,
            "geometry": start.geometry,
        }

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to the stage ``name``."""
        started = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - started

    def seconds(self, frames: int = 1) -> StageSeconds:
        """The times so far, divided by the number of ``frames`` processed together."""
        return StageSeconds(**{name: each / frames for name, each in self._seconds.items()})
