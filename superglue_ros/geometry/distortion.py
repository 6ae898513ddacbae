"""Lens distortion on the normalised image plane: forward in closed form, inverse by Newton.

The models are OpenCV's, under the names of ``sensor_msgs/CameraInfo``: ``plumb_bob`` (k1 k2 p1 p2
k3), ``rational_polynomial`` (k1 k2 p1 p2 k3 k4 k5 k6) and ``equidistant`` (Kannala-Brandt, k1 k2
k3 k4). The inverse is our own because OpenCV's fixed-point iteration stops after five steps by
default, versions differ in how to change that, and it returns a wrong point where there is no
solution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Model = Callable[[Array, Array], tuple[Array, Array]]

_STEPS = 30
_TOLERANCE = 1e-10


def rational(points: Array, coefficients: Array) -> tuple[Array, Array]:
    """Distort (N, 2) normalised points; also (N, 2, 2), the derivative by the points.

    ``coefficients`` k1 k2 p1 p2 k3 k4 k5 k6; plumb_bob is the case k4 = k5 = k6 = 0.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    x, y = points[:, 0], points[:, 1]
    r2 = x * x + y * y
    above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    # d radial / d r^2, by the quotient rule
    slope = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - radial * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below
    distorted = np.column_stack(
        (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    )
    jacobian = np.empty((len(points), 2, 2))
    jacobian[:, 0, 0] = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    jacobian[:, 0, 1] = jacobian[:, 1, 0] = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    jacobian[:, 1, 1] = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return distorted, jacobian


def undistort_rational(points: Array, coefficients: Array) -> Array:
    """Inverse of :func:`rational`: (N, 2) distorted to (N, 2) normalised points.

    NaN where no undistorted point maps to a pixel (beyond the fold of a strong distortion).
    """
    estimate = points.copy()
    for _ in range(_STEPS):
        distorted, jacobian = rational(estimate, coefficients)
        error = points - distorted
        if np.abs(error).max(initial=0.0) < _TOLERANCE:
            break
        # Past the fold the derivative changes sign and Newton diverges: take a plain step instead.
        safe = determinant(jacobian) > 0.05
        step = error.copy()
        step[safe] = np.linalg.solve(jacobian[safe], error[safe][:, :, None])[:, :, 0]
        estimate = estimate + np.clip(step, -0.5, 0.5)
    distorted, jacobian = rational(estimate, coefficients)
    wrong = ~(np.abs(points - distorted).max(axis=1, initial=0.0) < 1e-7)
    # Inside the fold both eigenvalues are positive; beyond it the image is mirrored once or twice.
    wrong |= ~((determinant(jacobian) > 0) & (jacobian[:, 0, 0] + jacobian[:, 1, 1] > 0))
    estimate[wrong] = np.nan
    return estimate


def equidistant(points: Array, coefficients: Array) -> tuple[Array, Array]:
    """Distort (N, 2) normalised points by the fisheye model; also the (N, 2, 2) derivative."""
    radius = np.linalg.norm(points, axis=1)
    angle = np.arctan(radius)
    bent, slope = _bend(angle, coefficients)
    small = radius < 1e-9
    safe = np.where(small, 1.0, radius)
    scale = np.where(small, 1.0, bent / safe)
    d_bent = slope / (1 + radius * radius)
    unit = np.where(small[:, None], 0.0, points / safe[:, None])
    along = (d_bent - scale)[:, None, None] * unit[:, :, None] * unit[:, None, :]
    jacobian = np.where(small, 1.0, scale)[:, None, None] * np.eye(2) + along
    return points * scale[:, None], jacobian


def undistort_equidistant(points: Array, coefficients: Array) -> Array:
    """Inverse of :func:`equidistant`; NaN for rays at 89 degrees from the axis and beyond."""
    bent = np.linalg.norm(points, axis=1)
    angle = np.minimum(bent, np.pi / 2)
    for _ in range(_STEPS):
        value, slope = _bend(angle, coefficients)
        angle = np.clip(angle + (bent - value) / np.maximum(slope, 0.05), 0.0, np.pi)
    value, slope = _bend(angle, coefficients)
    small = bent < 1e-9
    scale = np.where(small, 1.0, np.tan(angle) / np.where(small, 1.0, bent))
    rays = points * scale[:, None]
    wrong = ~(np.abs(value - bent) < 1e-7) | (angle > np.deg2rad(89.0)) | ~(slope > 0)
    rays[wrong] = np.nan
    return rays


def _bend(angle: Array, coefficients: Array) -> tuple[Array, Array]:
    """Distorted angle of the fisheye model and its derivative."""
    k1, k2, k3, k4 = coefficients
    a2 = angle * angle
    value = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    slope = 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))
    return value, slope


def determinant(matrices: Array) -> Array:
    """Determinants (N,) of (N, 2, 2)."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
