"""A rendered sequence that returns to its start: once around in the demonstration's room."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superglue_ros.back_end.scene import Array
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.synthetic.demo_room import START_NS, built_in_camera, demo_room
from superglue_ros.synthetic.rendering import render
from superglue_ros.synthetic.rooms import look_at

_DEGREES_PER_FRAME = 5.0
_OVERLAP_DEGREES = 30.0  # beyond the full turn
_CENTRE_M = np.array([2.6, 2.1, 1.6])
_RADIUS_M = 0.6
_TILT = 0.35  # looks down at the floor and the boxes: walls alone are a planar scene
_RATE_HZ = 10.0
_NOISE = 2.0  # standard deviation of the sensor noise in grey values


class RoundTripSequence:
    """The camera goes around a circle, looks outwards, and ends a little beyond its start."""

    name = "round-trip"

    def __init__(self) -> None:
        self.camera = built_in_camera()
        self._scene = demo_room()

    def __len__(self) -> int:
        return int((360 + _OVERLAP_DEGREES) / _DEGREES_PER_FRAME) + 1

    def __iter__(self) -> Iterator[SequenceItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SequenceItem:
        """Frame ``index`` of the trip."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        camera, pose = self.camera, _pose(np.deg2rad(index * _DEGREES_PER_FRAME))
        clean, depth = render(self._scene, camera.matrix, camera.width, camera.height, pose)
        noise = np.random.default_rng(index).normal(scale=_NOISE, size=clean.shape)
        image = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
        stamp_ns = START_NS + round(index / _RATE_HZ * 1e9)
        return SequenceItem(
            stamp_ns=stamp_ns, image=image, camera=camera, depth=depth, T_world_camera=pose
        )


def _pose(angle: float) -> Array:
    """On the circle at ``angle`` [rad], looking outwards, swaying a little in height and depth."""
    outwards = np.array([np.cos(angle), np.sin(angle), 0.0])
    position = _CENTRE_M + (_RADIUS_M + 0.1 * np.sin(3 * angle)) * outwards
    position[2] += 0.1 * np.sin(2 * angle)
    return look_at(position, position + outwards - [0, 0, _TILT + 0.1 * np.sin(2 * angle)])
