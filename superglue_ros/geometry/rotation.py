"""Functions on the rotation group SO(3)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SMALL_RAD = 1e-4


def skew(vector: Array) -> Array:
    """(3, 3) matrix with ``skew(a) @ b = a x b``."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def exp(vector: Array) -> Array:
    """Rotation (3, 3) by the angle |vector| in radians about the axis ``vector`` (3,)."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector, np.float64))[0], np.float64)


def log(rotation: Array) -> Array:
    """Rotation vector (3,) in radians; inverse of :func:`exp` up to full turns."""
    if angle(rotation) < _SMALL_RAD:  # OpenCV takes such angles for zero
        odd = (rotation - rotation.T) / 2
        return np.array([odd[2, 1], odd[0, 2], odd[1, 0]])
    return np.asarray(cv2.Rodrigues(np.asarray(rotation, np.float64))[0], np.float64).ravel()


def angle(rotation: Array) -> float:
    """Angle of a rotation in radians, exact near zero and near half a turn."""
    sine = np.linalg.norm(rotation - rotation.T) / np.sqrt(8.0)
    return float(np.arctan2(sine, (np.trace(rotation) - 1) / 2))


def nearest(matrix: Array) -> Array:
    """The rotation nearest to a (3, 3) matrix in the Frobenius norm."""
    u, _, vt = np.linalg.svd(matrix)
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt)


def tangent_basis(direction: Array) -> Array:
    """(3, 2) orthonormal columns that span the plane at right angles to a unit ``direction``."""
    cross = skew(direction)
    first = cross[:, np.argmin(np.abs(direction))]
    first = first / np.linalg.norm(first)
    return np.column_stack((first, cross @ first))
