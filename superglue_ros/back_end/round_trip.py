"""A rendered sequence that returns to its start: once around in the demonstration's room.

With an IMU, simulated along the same path: beside the camera, with the noise of EuRoC's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superglue_ros.back_end.scene import Array, pose_of
from superglue_ros.data.imu import ImuRecording
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.synthetic.demo_room import START_NS, built_in_camera, demo_room
from superglue_ros.synthetic.imu import adis16448, simulate
from superglue_ros.synthetic.rendering import render
from superglue_ros.synthetic.rooms import look_at

_DEGREES_PER_FRAME = 5.0
_OVERLAP_DEGREES = 30.0  # beyond the full turn
_CENTRE_M = np.array([2.6, 2.1, 1.6])
_RADIUS_M = 0.6
_TILT = 0.35  # looks down at the floor and the boxes: walls alone are a planar scene
_RATE_HZ = 10.0
_SEEDS = 1000  # apart, those of the noise of images
_T_CAMERA_IMU = pose_of(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), np.array([0.06, 0.02, 0]))
_BIASES = 0.1, 0.02  # standard deviations [m/s^2, rad/s]
_NOISE = 2.0  # standard deviation of the sensor noise in grey values


class RoundTripSequence:
    """The camera goes around a circle, looks outwards, and ends a little beyond its start."""

    name = "round-trip"

    def __init__(self, seed: int = 0) -> None:
        self.camera = built_in_camera()
        self._scene = demo_room()
        self._seed = seed

    def __len__(self) -> int:
        return int((360 + _OVERLAP_DEGREES) / _DEGREES_PER_FRAME) + 1

    def __iter__(self) -> Iterator[SequenceItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SequenceItem:
        """Frame ``index`` of the trip."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        camera, pose = self.camera, _pose_at(index / _RATE_HZ)
        clean, depth = render(self._scene, camera.matrix, camera.width, camera.height, pose)
        noise = np.random.default_rng(index + _SEEDS * self._seed).normal(
            scale=_NOISE, size=clean.shape
        )
        image = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
        stamp_ns = START_NS + round(index / _RATE_HZ * 1e9)
        return SequenceItem(
            stamp_ns=stamp_ns, image=image, camera=camera, depth=depth, T_world_camera=pose
        )

    def read_imu(self) -> ImuRecording:
        """The simulated IMU; its noise and biases are those of the sequence's seed."""
        calibration = adis16448(_T_CAMERA_IMU)
        rng = np.random.default_rng(self._seed)
        bias = rng.normal(scale=np.repeat(_BIASES, 3))
        end_s = len(self) / _RATE_HZ
        readings = simulate(
            _pose_at, end_s, calibration, bias=bias, start_ns=START_NS, seed=self._seed
        )
        return ImuRecording(readings, calibration)


def _pose_at(seconds: float) -> Array:
    return _pose(np.deg2rad(seconds * _RATE_HZ * _DEGREES_PER_FRAME))


def _pose(angle: float) -> Array:
    """On the circle at ``angle`` [rad], looking outwards, swaying a little in height and depth."""
    outwards = np.array([np.cos(angle), np.sin(angle), 0.0])
    position = _CENTRE_M + (_RADIUS_M + 0.1 * np.sin(3 * angle)) * outwards
    position[2] += 0.1 * np.sin(2 * angle)
    return look_at(position, position + outwards - [0, 0, _TILT + 0.1 * np.sin(2 * angle)])
