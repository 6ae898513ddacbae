"""Cameras in a world: somewhere free, then orbiting, walking or driving.

Poses are ``T_world_camera`` (4, 4), optical axes (x right, y down, z forward), metres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds.free_space import FreeSpace

Array = NDArray[np.float64]

MOTIONS = ("orbit", "walk", "drive")
"""Around what is seen; along, looking about; forwards or backwards, as on a vehicle."""

CLEARANCE_M = 0.25
"""Cameras stay this far from walls."""

_PITCH = 0.22  # radians, standard deviation of a first camera's look up or down
_ROLL = 0.14
_GLANCE = {"walk": 0.25, "drive": 0.08}  # radians, how far the next camera looks elsewhere


def first_camera(rng: np.random.Generator, space: FreeSpace) -> Array:
    """A camera at a free place, mostly level.

    Raises :class:`DataError` where the map has no free place.
    """
    position = space.draw(rng, CLEARANCE_M)
    yaw, pitch = space.heading(rng, position), rng.normal(0, _PITCH)
    level = np.cos(pitch)
    forward = np.array([np.cos(yaw) * level, np.sin(yaw) * level, np.sin(pitch)])
    return look_at(position, position + forward, rng.normal(0, _ROLL))


def next_camera(
    rng: np.random.Generator,
    space: FreeSpace,
    first: Array,
    motion: str,
    distance: float,
    reach: float,
) -> Array | None:
    """A camera at ``reach`` metres from ``first`` after one of :data:`MOTIONS`.

    ``distance`` [m] is that from ``first`` to what it sees. None where the place is not free.
    """
    place, forward = first[:3, 3], first[:3, 2]
    step = rng.normal(size=3) * (1.0, 1.0, 0.45)  # people and vehicles move along the floor
    if motion == "drive":
        step = forward * rng.choice([-1.0, 1.0]) + 0.1 * step
    step *= reach / max(float(np.linalg.norm(step)), 1e-9)
    if not space.is_free(place + step, CLEARANCE_M):
        return None
    if motion == "orbit":
        target = place + forward * distance + rng.normal(0, 0.1 * distance, 3)
    else:
        target = place + step + forward + rng.normal(0, _GLANCE[motion], 3)
    if np.linalg.norm(target - place - step) < 1e-6:
        return None
    return look_at(place + step, target, _roll_of(first) + rng.normal(0, _ROLL))


def _roll_of(pose: Array) -> float:
    """The roll that :func:`look_at` was given."""
    upright = look_at(pose[:3, 3], pose[:3, 3] + pose[:3, 2])
    turned = upright[:3, :3].T @ pose[:3, 0]
    return float(np.arctan2(turned[1], turned[0]))
