"""Rolling shutters: the rows of an image are exposed one after the other while the camera moves.

Row y of an image of H rows is exposed ``readout_s * ((y + 0.5) / H - 0.5)`` seconds after the
middle of the image, and the camera keeps its velocity while it is (as in Hedborg et al., Rolling
Shutter Bundle Adjustment, CVPR 2012). A negative readout time is that of rows which are exposed
from the bottom to the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.rotation import log

Array = NDArray[np.float64]

_LONGEST_GAP, _LONGEST_GAP_S = 3.0, 0.5  # median intervals, seconds


@dataclass(frozen=True, eq=False)
class Motion:
    """Velocity of a camera in its own optical axes at the middle of an image.

    ``angular`` (3,) rad/s and ``linear`` (3,), in the unit of the map a second.
    """

    angular: Array
    linear: Array


def motion_between(before: Array, at: Array, after: Array, seconds: float) -> Motion:
    """The motion at a pose from the poses around it, all ``T_world_camera`` (4, 4).

    ``seconds`` lie between ``before`` and ``after``; at an end of a sequence one of them is ``at``.
    """
    return Motion(
        angular=log(before[:3, :3].T @ after[:3, :3]) / seconds,
        linear=at[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / seconds,
    )


def motions_along(stamps_s: Array, poses: Sequence[Array]) -> list[Motion | None]:
    """The motion at each of ``poses`` (``T_world_camera``) at rising ``stamps_s`` (N,) seconds.

    From the poses before and after it, or one of them. None where they are farther away than three
    median intervals or half a second: the camera may have done anything in between.
    """
    gaps = np.diff(stamps_s)
    longest = min(_LONGEST_GAP * float(np.median(gaps)), _LONGEST_GAP_S) if len(gaps) else 0.0
    near = np.concatenate([[False], (gaps > 0) & (gaps <= longest), [False]])
    motions: list[Motion | None] = []
    for k, pose in enumerate(poses):
        first, last = k - int(near[k]), k + int(near[k + 1])
        seconds = float(stamps_s[last] - stamps_s[first])
        around = poses[first], pose, poses[last]
        motions.append(motion_between(*around, seconds) if first < last else None)
    return motions


def global_shutter_shift(
    points: Array, rows: NDArray, camera: Camera, motion: Motion, readout_s: float
) -> Array:
    """What to add to the pixels of a rolling shutter to get those of a global one: (N, 2).

    ``points`` (N, 3) in the camera at the middle of the image, seen in ``rows`` (N,) of it. 0 where
    a point is not in front of the camera.
    """
    times = readout_s * ((np.asarray(rows, np.float64) + 0.5) / camera.height - 0.5)
    turns = Rotation.from_rotvec(-times[:, None] * motion.angular)
    then = turns.apply(points - times[:, None] * motion.linear)
    return np.nan_to_num(camera.project(points) - camera.project(then))


def rotation_shift(pixels: NDArray, camera: Camera, angular: Array, readout_s: float) -> Array:
    """The part of :func:`global_shutter_shift` that needs no depth: (N, 2) for pixels (N, 2).

    ``angular`` (3,) rad/s, in the camera's axes.
    """
    rays = np.column_stack([camera.rays(pixels), np.ones(len(pixels))])
    turning = Motion(angular=angular, linear=np.zeros(3))
    return global_shutter_shift(rays, pixels[:, 1], camera, turning, readout_s)
