"""Epipolar geometry of two calibrated views, on rays (normalised image coordinates).

Everywhere ``x_ref = R x_query + t``, so ``E = [t]x R`` and ``x_ref^T E x_query = 0``; rays are
(K, 2) float64 rows (x, y), meaning (x, y, 1).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.rotation import skew

Array = NDArray[np.float64]


def homogeneous(rays: Array) -> Array:
    """(K, 3) rays of (K, 2)."""
    return np.column_stack((rays, np.ones(len(rays))))


def essential_matrix(rotation: Array, translation: Array) -> Array:
    """``E = [t]x R`` (3, 3) with t scaled to unit length."""
    norm = np.linalg.norm(translation)
    return skew(translation / norm if norm > 0 else translation) @ rotation


def sampson_distance(rays_ref: Array, rays_query: Array, essential: Array) -> Array:
    """Signed first-order distances (K,) of the joint points to the epipolar constraint.

    On the normalised plane: unit standard deviation in all four coordinates gives unit standard
    deviation here (Hartley and Zisserman, eq. 11.9).
    """
    ref, query = homogeneous(rays_ref), homogeneous(rays_query)
    line_ref, line_query = query @ essential.T, ref @ essential
    gradient = np.hypot(
        np.hypot(line_ref[:, 0], line_ref[:, 1]), np.hypot(line_query[:, 0], line_query[:, 1])
    )
    return np.einsum("ki,ki->k", ref, line_ref) / np.maximum(gradient, 1e-300)


def symmetric_distance_px(
    rays_ref: Array, rays_query: Array, essential: Array, focal_ref: float, focal_query: float
) -> Array:
    """Mean distance (K,) in pixels of the two points to their epipolar lines."""
    ref, query = homogeneous(rays_ref), homogeneous(rays_query)
    line_ref, line_query = query @ essential.T, ref @ essential
    error = np.abs(np.einsum("ki,ki->k", ref, line_ref))
    to_ref = error / np.maximum(np.hypot(line_ref[:, 0], line_ref[:, 1]), 1e-300)
    to_query = error / np.maximum(np.hypot(line_query[:, 0], line_query[:, 1]), 1e-300)
    return (focal_ref * to_ref + focal_query * to_query) / 2


def rotation_distance_px(
    rays_ref: Array, rays_query: Array, rotation: Array, focal_ref: float, focal_query: float
) -> Array:
    """Mean distance (K,) in pixels of the two points to where a pure rotation puts them."""
    to_ref = homogeneous(rays_query) @ rotation.T
    to_query = homogeneous(rays_ref) @ rotation
    ref = np.linalg.norm(to_ref[:, :2] / to_ref[:, 2:] - rays_ref, axis=1)
    query = np.linalg.norm(to_query[:, :2] / to_query[:, 2:] - rays_query, axis=1)
    return (focal_ref * ref + focal_query * query) / 2


def parallax(rays_ref: Array, rays_query: Array, rotation: Array) -> Array:
    """Angles (K,) in radians between reference rays and query rays turned into the reference."""
    ref = homogeneous(rays_ref)
    query = homogeneous(rays_query) @ rotation.T
    dot = np.einsum("ki,ki->k", ref, query)
    # |a|^2 |b|^2 - (a.b)^2 loses half the digits near zero; the cross product does not.
    across = ref[:, [1, 2, 0]] * query[:, [2, 0, 1]] - ref[:, [2, 0, 1]] * query[:, [1, 2, 0]]
    return np.arctan2(np.linalg.norm(across, axis=1), dot)


def depths(
    rays_ref: Array, rays_query: Array, rotation: Array, translation: Array
) -> tuple[Array, Array]:
    """Depths (K,) and (K,) along the optical axes of the points nearest to both rays.

    In units of the translation; negative = behind that camera. Rays that are parallel to the last
    bit give infinite depth with the sign of the direction in which they converge.
    """
    ref = homogeneous(rays_ref)
    query = homogeneous(rays_query) @ rotation.T
    # Normal equations of |z_ref ref - z_query query - t|^2.
    aa = np.einsum("ki,ki->k", ref, ref)
    bb = np.einsum("ki,ki->k", query, query)
    ab = np.einsum("ki,ki->k", ref, query)
    at, bt = ref @ translation, query @ translation
    determinant = np.maximum(aa * bb - ab * ab, 1e-300)
    return (bb * at - ab * bt) / determinant, (ab * at - aa * bt) / determinant


def in_front(
    rays_ref: Array, rays_query: Array, rotation: Array, translation: Array
) -> NDArray[np.bool_]:
    """Whether (K,) each match has its point in front of both cameras (cheirality)."""
    z_ref, z_query = depths(rays_ref, rays_query, rotation, translation)
    return np.logical_and(z_ref > 0, z_query > 0)


def decompose_essential(
    essential: Array, rays_ref: Array, rays_query: Array
) -> tuple[Array, Array]:
    """Of the four rotations and unit translations the one with most matches in front of both."""
    # OpenCV's singular vectors are wrong where entries are as small as 1e-146: those round to 0.
    rounding = np.finfo(np.float64).eps * np.abs(essential).max()
    clean = np.where(np.abs(essential) < rounding, 0.0, essential)
    first, second, direction = cv2.decomposeEssentialMat(clean)
    candidates = [
        (np.asarray(rotation, np.float64), sign * np.asarray(direction, np.float64).ravel())
        for rotation in (first, second)
        for sign in (1.0, -1.0)
    ]
    return max(candidates, key=lambda pose: int(in_front(rays_ref, rays_query, *pose).sum()))


def normalise(points: NDArray, intrinsics: NDArray) -> Array:
    """Pixels (N, 2) to normalised image coordinates by 3x3 intrinsics (skew allowed)."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    return (np.c_[points, np.ones(len(points))] @ np.linalg.inv(intrinsics).T)[:, :2]
