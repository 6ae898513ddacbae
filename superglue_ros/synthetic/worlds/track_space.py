"""Free space of a race track: what can be seen from where karts drive, by the triangles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

_EYES_M = 1.2  # of the places above the road
_HEIGHTS_M = (0.8, 2.5)  # of cameras above the ground: vehicles and people
_ASIDE_M = 3.0  # of cameras from a place, along x and along y, at most
_REACH_M = 8.0  # farther from every place nothing is free
_SPACING_M = 4.0  # of places
_ABOVE_ROAD_M, _DEEPEST_M = 1.5, 4.0  # a drive line lies about on the road
_CLEAR_M = 0.4
_ALONG, _YAW = 0.7, 0.35  # part of the cameras that look along the road, and how nearly [rad]
_TRIES = 100
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class TrackSpace:
    """The open about a drive line: a :class:`FreeSpace`.

    ``corners`` (T, 3, 3) [m] of the world's triangles, ``places`` (P, 3) [m] above the road,
    ``headings`` (P,) [rad] of the road there. A position is free where a straight line leads from
    it to the nearest place, at most 8 m away.
    """

    corners: Floats
    places: Floats
    headings: Floats

    @classmethod
    def of(cls, corners: Floats, quads: Array) -> TrackSpace:
        """The space about a drive line of ``quads`` (Q, 4, 3), in the order of driving.

        Raises :class:`DataError` where no part of it is free.
        """
        nowhere = cls(corners, np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
        places, headings = [], []
        for place, heading in _places(quads):
            ground = nowhere.floor_below(place + _ABOVE_ROAD_M * _UP, _DEEPEST_M)
            if ground is not None and nowhere._is_clear(ground + _EYES_M * _UP, _CLEAR_M):
                places.append(ground + _EYES_M * _UP)
                headings.append(heading)
        if not places:
            raise DataError("the track has no drive line with room for a camera: leave it out")
        return cls(corners, np.array(places, np.float32), np.array(headings, np.float32))

    def is_free(self, position: Array, clearance: float = 0.0) -> bool:
        """Whether ``position`` (3,) sees the nearest place, with ``clearance`` along the axes."""
        position = np.asarray(position, np.float64)
        place = self.places[self._nearest(position)]
        near = float(np.linalg.norm(place - position)) < _REACH_M
        return near and self._is_clear(position, clearance, place)

    def draw(self, rng: np.random.Generator, clearance: float = 0.0) -> Array:
        """A random free position (3,), at the height of vehicles and people above the ground.

        Raises :class:`DataError` where none is found.
        """
        for _ in range(_TRIES):
            position = self.places[int(rng.integers(len(self.places)))].astype(np.float64)
            position[:2] += rng.uniform(-_ASIDE_M, _ASIDE_M, 2)
            ground = self.floor_below(position) if self.is_free(position) else None
            if ground is None:
                continue
            position = ground + rng.uniform(*_HEIGHTS_M) * _UP
            if self.is_free(position, clearance):
                return position
        raise DataError("the track has no free space for a camera: leave it out")

    def heading(self, rng: np.random.Generator, position: Array) -> float:
        """Along the road one way or the other, nearly, or in part of the cases any direction."""
        if rng.random() >= _ALONG:
            return float(rng.uniform(-np.pi, np.pi))
        turned = np.pi * float(rng.integers(2)) + rng.normal(0, _YAW)
        return float(self.headings[self._nearest(position)]) + turned

    def floor_below(self, position: Array, most_m: float = 4.0) -> Array | None:
        """The ground (3,) under ``position``; None if none is within ``most_m``."""
        start = np.asarray(position, np.float64)
        part = self._first_hit(start[None], (start - most_m * _UP)[None])
        return None if part is None else start - part * most_m * _UP

    def _nearest(self, position: Array) -> int:
        return int(np.linalg.norm(self.places - position, axis=1).argmin())

    def _is_clear(
        self, position: Array, clearance: float, place: NDArray[np.floating] | None = None
    ) -> bool:
        """Whether no triangle is between ``position``, the points about it, and the ``place``."""
        ends = position + clearance * np.vstack([np.eye(3), -np.eye(3)])
        if place is not None:
            ends = np.vstack([ends, place])
        return self._first_hit(np.broadcast_to(position, ends.shape), ends) is None

    def _first_hit(self, starts: Array, ends: Array) -> float | None:
        """How far along lines (N, 3) the first triangle is, in parts of a line; None without one.

        Moeller and Trumbore, Fast, Minimum Storage Ray/Triangle Intersection, 1997.
        """
        low = np.minimum(starts, ends).min(axis=0)
        high = np.maximum(starts, ends).max(axis=0)
        near = np.flatnonzero((self._lows[0] <= high[0]) & (self._highs[0] >= low[0]))
        for axis in (1, 2):
            lows, highs = self._lows[axis, near], self._highs[axis, near]
            near = near[(lows <= high[axis]) & (highs >= low[axis])]
        a, b, c = self.corners[near].astype(np.float64).transpose(1, 0, 2)
        ray = (ends - starts)[:, None]
        across = np.cross(ray, c - a)
        from_corner = starts[:, None] - a
        other = np.cross(from_corner, b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1 / ((b - a) * across).sum(axis=2)
            u = scale * (from_corner * across).sum(axis=2)
            v = scale * (ray * other).sum(axis=2)
            part = scale * ((c - a) * other).sum(axis=2)
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (part >= 0) & (part <= 1)
        return float(part[hit].min()) if hit.any() else None

    @cached_property
    def _lows(self) -> Floats:
        """Lowest coordinates (3, T) of the triangles."""
        return np.ascontiguousarray(self.corners.min(axis=1).T)

    @cached_property
    def _highs(self) -> Floats:
        return np.ascontiguousarray(self.corners.max(axis=1).T)


def _places(quads: Array) -> list[tuple[Array, float]]:
    """Points (3,) all over the quads, evenly, and the direction [rad] of the road at each."""
    found = []
    for left, right, right_on, left_on in quads:
        ahead = (left_on + right_on - left - right) / 2
        rows = max(1, round(float(np.linalg.norm(ahead)) / _SPACING_M))
        columns = max(1, round(float(np.linalg.norm(right - left)) / _SPACING_M))
        for s in (np.arange(rows) + 0.5) / rows:
            for t in (np.arange(columns) + 0.5) / columns:
                start, end = left + s * (left_on - left), right + s * (right_on - right)
                found.append((start + t * (end - start), float(np.arctan2(ahead[1], ahead[0]))))
    return found
