"""Posed views with depth: project pixels between views, and measure their overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import Projection, inside

Array = NDArray[np.float64]
Depth = NDArray[np.floating]

OCCLUSION_TOLERANCE = 0.05
"""Relative difference of depth up to which a point and the surface seen there are the same."""


def check_depth(depth: Depth, width: int, height: int, name: str) -> None:
    """Raise :class:`DataError` unless ``depth`` fits an image of ``width`` x ``height`` pixels."""
    if depth.shape != (height, width):
        raise DataError(
            f"{name}: the depth map has shape {depth.shape}, its image {(height, width)}: give "
            f"depth registered to the image and of its size"
        )


def sample_depth(depth: Depth, points: Array) -> Array:
    """Depth (N,) at the nearest pixel of (N, 2) points; NaN outside and where it is missing."""
    height, width = depth.shape
    valid = inside(points, width, height)
    pixels = np.rint(np.where(valid[:, None], points, 0)).astype(int)
    values = depth[
        np.clip(pixels[:, 1], 0, height - 1), np.clip(pixels[:, 0], 0, width - 1)
    ].astype(np.float64)
    return np.where(valid & np.isfinite(values) & (values > 0), values, np.nan)


def project_depth(
    keypoints: NDArray[np.floating],
    depth0: Depth,
    depth1: Depth,
    matrix0: Array,
    matrix1: Array,
    T_1_0: Array,
) -> Projection:
    """Keypoints (N, 2) of view 0 in view 1, with occlusion by depth consistency.

    ``depth0``, ``depth1`` (H, W) metres along the optical axis, 0 or NaN = missing; ``matrix0``,
    ``matrix1`` (3, 3); ``T_1_0`` (4, 4). A point is hidden if it falls outside view 1 or lies
    behind the surface seen there, unknown if either depth is missing. A point well before the
    surface contradicts the depth maps: unknown too.
    """
    points = np.asarray(keypoints, np.float64).reshape(-1, 2)
    z0 = sample_depth(depth0, points)
    rays = np.c_[points, np.ones(len(points))] @ np.linalg.inv(matrix0).T
    camera1 = (rays * z0[:, None]) @ T_1_0[:3, :3].T + T_1_0[:3, 3]
    behind = camera1[:, 2] <= 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        image1 = (camera1 @ matrix1.T)[:, :2] / camera1[:, 2:]
    image1[behind] = np.nan
    height, width = depth1.shape
    missing = np.isnan(z0)
    outside = ~missing & (behind | ~inside(image1, width, height))
    z1 = sample_depth(depth1, image1)
    with np.errstate(invalid="ignore"):
        occluded = camera1[:, 2] > z1 * (1 + OCCLUSION_TOLERANCE)
        before = camera1[:, 2] < z1 * (1 - OCCLUSION_TOLERANCE)
    hidden = outside | occluded
    unknown = ~hidden & (missing | np.isnan(z1) | before)
    return Projection(image1, hidden, unknown)


def overlap(
    depth0: Depth, depth1: Depth, matrix0: Array, matrix1: Array, T_1_0: Array, step: int = 16
) -> float:
    """Share of view 0's pixels with depth that view 1 sees too, on a grid of every ``step``-th."""
    height, width = depth0.shape
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    projection = project_depth(grid, depth0, depth1, matrix0, matrix1, T_1_0)
    known = ~projection.unknown
    return float((known & ~projection.hidden).sum() / max(known.sum(), 1))


def mutual_overlap(
    depth0: Depth, depth1: Depth, matrix0: Array, matrix1: Array, T_1_0: Array, step: int = 16
) -> float:
    """The overlap score of appendix E: the mean share of either view that the other sees."""
    T_0_1: Array = np.asarray(np.linalg.inv(T_1_0), np.float64)
    there = overlap(depth0, depth1, matrix0, matrix1, T_1_0, step)
    back = overlap(depth1, depth0, matrix1, matrix0, T_0_1, step)
    return (there + back) / 2
