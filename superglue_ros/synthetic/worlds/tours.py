"""A camera that walks through a world, back, and the same way again: revisits with known poses.

Poses are ``T_world_camera`` (4, 4), optical axes (x right, y down, z forward), metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds.cameras import CLEARANCE_M
from superglue_ros.synthetic.worlds.free_space import FreeSpace

Array = NDArray[np.float64]

_EYES_M = 1.6  # above the floor
_PLACES = 160  # free places that ways lead between
_LONGEST_M, _SHORTEST_M = 9.0, 1.5  # of a straight way
_CLIMB = 0.5  # steepest way, rise over run
_PROBE_M = 0.2
_AHEAD_M = 1.5  # where the camera looks, along the way
_TRIES = 12


@dataclass(frozen=True)
class TourConfig:
    """``length_m`` of the way there, steps and turns from frame to frame at most; how far the
    second time there leaves the way to a side, and looks elsewhere, at most.
    """

    length_m: float = 16.0
    step_m: float = 0.5
    turn_deg: float = 12.0
    aside_m: float = 0.3
    glance_deg: float = 8.0


def tour(rng: np.random.Generator, space: FreeSpace, config: TourConfig) -> list[Array]:
    """Poses along a way, back with the view turned, and along it again.

    Raises :class:`DataError` where the world has no such way.
    """
    for _ in range(_TRIES):
        corners = _way(rng, space, config.length_m)
        if corners is None:
            continue
        there = _resampled(corners, config.step_m)
        again = _aside(rng, space, there, config.aside_m)
        headings = [_headings(one, config.step_m) for one in (there, there[::-1], again)]
        glances = np.radians(config.glance_deg) * _smooth_noise(rng, len(again))
        poses: list[Array] = []
        for k, (places, yaws) in enumerate(zip((there, there[::-1], again), headings, strict=True)):
            offset = glances if k == 2 else np.zeros(len(places))
            poses += _turning(poses[-1:], places, yaws + offset, np.radians(config.turn_deg))
        return poses
    raise DataError(f"the world has no way of {config.length_m:g} m: give another seed or world")


def _way(rng: np.random.Generator, space: FreeSpace, length: float) -> Array | None:
    """Corners (K, 3) of a way of ``length`` through free space that visits no place twice."""
    places = _places(rng, space)
    way, walked = [int(rng.integers(len(places)))], 0.0
    left = set(range(len(places))) - set(way)
    while walked < length:
        here = places[way[-1]]
        order = sorted(left, key=lambda k: float(np.linalg.norm(places[k] - here)))
        near = [k for k in order if _SHORTEST_M < np.linalg.norm(places[k] - here) < _LONGEST_M]
        following = next(
            (k for k in rng.permutation(near[:12]) if _open(space, here, places[k])), None
        )
        if following is None:
            return None
        # What is near the way already walked would be seen again too soon.
        walked += float(np.linalg.norm(places[following] - here))
        way.append(int(following))
        left = {k for k in left if np.linalg.norm(places[k] - here) > _SHORTEST_M} - {following}
    return places[way]


def _places(rng: np.random.Generator, space: FreeSpace) -> Array:
    """Free places (K, 3) at the height of eyes above a floor."""
    found, up = [], np.array([0.0, 0.0, _EYES_M])
    for _ in range(_PLACES):
        floor = space.floor_below(space.draw(rng, CLEARANCE_M))
        if floor is not None and space.is_free(floor + up, CLEARANCE_M):
            found.append(floor + up)
    if not found:
        raise DataError("the world has no floor to walk on: leave it out")
    return np.array(found)


def _open(space: FreeSpace, start: Array, end: Array) -> bool:
    """Whether one can walk straight from ``start`` to ``end``."""
    step = end - start
    length = float(np.linalg.norm(step))
    if abs(step[2]) > _CLIMB * float(np.linalg.norm(step[:2])):
        return False
    parts = np.linspace(0, 1, max(2, int(length / _PROBE_M)))
    return all(space.is_free(start + part * step, CLEARANCE_M) for part in parts)


def _resampled(corners: Array, step: float) -> Array:
    """Places (N, 3) every ``step`` along the way."""
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(lengths)])
    wanted = np.arange(0, at[-1], step)
    return np.stack([np.interp(wanted, at, corners[:, k]) for k in range(3)], axis=1)


def _headings(places: Array, step: float) -> Array:
    """(N,) radians, the direction from each place to the one that is looked at."""
    ahead = min(max(1, round(_AHEAD_M / step)), len(places) - 1)
    extended = np.concatenate(
        [places, places[-1] + np.outer(np.arange(1, ahead + 1), places[-1] - places[-2])]
    )
    towards = extended[ahead : ahead + len(places)] - places
    return np.arctan2(towards[:, 1], towards[:, 0])


def _aside(rng: np.random.Generator, space: FreeSpace, places: Array, most: float) -> Array:
    """The places, moved sideways where there is room."""
    moves = np.stack([_smooth_noise(rng, len(places)) for _ in range(3)], axis=1) * [1, 1, 0.5]
    moved = places + most * moves / np.sqrt(2)
    free = [space.is_free(place, CLEARANCE_M) for place in moved]
    return np.where(np.array(free)[:, None], moved, places)


def _turning(before: list[Array], places: Array, yaws: Array, most: float) -> list[Array]:
    """Level poses; the camera turns on the spot where it turns by more than ``most`` at once."""
    poses = []
    last = None if not before else float(np.arctan2(before[0][1, 2], before[0][0, 2]))
    for place, yaw in zip(places, yaws, strict=True):
        turn = 0.0 if last is None else float(np.angle(np.exp(1j * (yaw - last))))
        count = max(1, int(np.ceil(abs(turn) / most)))
        for k in range(1, count + 1):
            heading = yaw - turn * (1 - k / count)
            poses.append(look_at(place, place + np.array([np.cos(heading), np.sin(heading), 0.0])))
        last = float(yaw)
    return poses


def _smooth_noise(rng: np.random.Generator, count: int) -> Array:
    """(N,) in [-1, 1], changing slowly."""
    at = np.arange(0, count + 8, 8)
    return np.interp(np.arange(count), at, rng.uniform(-1, 1, len(at)))
