"""Angular errors of an estimated pose (section 5.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotation_error_deg(estimate: NDArray, truth: NDArray) -> float:
    """Angle between two rotations [degrees], accurate near 0 and near 180."""
    difference = np.asarray(estimate, np.float64).T @ np.asarray(truth, np.float64)
    axis = np.array(
        [
            difference[2, 1] - difference[1, 2],
            difference[0, 2] - difference[2, 0],
            difference[1, 0] - difference[0, 1],
        ]
    )
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(difference) - 1) / 2
    return float(np.degrees(np.arctan2(sine, cosine)))


def direction_error_deg(estimate: NDArray, truth: NDArray, signed: bool = False) -> float:
    """Angle between two translations [degrees]; infinite where the estimate has no length.

    An essential matrix leaves the sign of the translation open: unsigned, the usual form in
    published tables, takes t and -t as the same (0 to 90); ``signed`` does not (0 to 180). NaN
    where the true translation is zero: there is no direction to compare with.
    """
    a, b = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    length = np.linalg.norm(b)
    if length == 0:
        return float("nan")
    if np.linalg.norm(a) == 0 or not np.isfinite(a).all():
        return float("inf")
    angle = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    return angle if signed else min(angle, 180.0 - angle)


def pose_error_deg(rotation_deg: float, direction_deg: float) -> float:
    """The larger of rotation and direction error (section 5.2); a NaN direction is ignored."""
    return rotation_deg if np.isnan(direction_deg) else max(rotation_deg, direction_deg)
