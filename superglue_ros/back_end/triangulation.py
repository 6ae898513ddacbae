"""Positions of new landmarks from two or more rays, and their covariance."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.scene import Array, Observation, Scene, in_camera
from superglue_ros.types import FrameId


def triangulate_new(scene: Scene, frame: FrameId, focal_px: float, config: BackEndConfig) -> int:
    """Triangulate the landmarks without position that ``frame`` sees; returns their number.

    A position is accepted if its rays have enough parallax, it lies in front of every camera, and
    every reprojection error is within ``max_error_px``. Until then its observations are kept: a
    later frame may add parallax.
    """
    added = 0
    for track in sorted(scene.tracks_of.get(frame, ())):
        if track in scene.landmarks:
            continue
        views = scene.placed_views(track)
        if len(views) < 2:
            continue
        poses = np.stack([scene.poses[view] for view in views])
        rays = np.stack([observation.ray for observation in views.values()])
        point = _triangulate(poses, rays)
        if point is not None and _acceptable(point, poses, rays, focal_px, config):
            scene.landmarks[track] = point
            added += 1
    return added


def position_covariance(scene: Scene, tracks: Iterable[int]) -> Array:
    """(K, 3, 3) covariance of landmark positions, given the poses of the frames that see them.

    The inverse of the information of all rays; large along the ray where they are nearly parallel.
    """
    spreads = []
    for track in tracks:
        views = scene.placed_views(track)
        spreads.append(_covariance(scene.landmarks[track], scene, views))
    return np.array(spreads).reshape(-1, 3, 3)


def _covariance(point: Array, scene: Scene, views: dict[FrameId, Observation]) -> Array:
    information = np.zeros((3, 3))
    for frame, observation in views.items():
        slope = projection_slope(scene.poses[frame], point[None])[0] / observation.sigma
        information += slope.T @ slope
    values, vectors = np.linalg.eigh(information)
    values = np.maximum(values, 1e-9 * max(float(values[-1]), 1e-300))
    return np.asarray((vectors / values) @ vectors.T)


def projection_slope(pose: Array, points: Array) -> Array:
    """(K, 2, 3) derivative of the ray by the position, for world points (K, 3) before a camera."""
    local = in_camera(pose, points)
    depth = np.maximum(local[:, 2], 1e-9)
    slope = np.zeros((len(points), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = 1 / depth
    slope[:, :, 2] = -local[:, :2] / depth[:, None] ** 2
    return np.asarray(slope @ pose[:3, :3].T)


def _triangulate(poses: Array, rays: Array) -> Array | None:
    """Linear least squares on the cross products of rays and points in each camera."""
    rotation = poses[:, :3, :3].transpose(0, 2, 1)
    translation = -np.einsum("kij,kj->ki", rotation, poses[:, :3, 3])
    rows = rotation[:, :2] - rays[:, :, None] * rotation[:, 2:]
    right = rays * translation[:, 2:] - translation[:, :2]
    point, _, rank, _ = np.linalg.lstsq(rows.reshape(-1, 3), right.reshape(-1), rcond=None)
    return point if rank == 3 else None


def _acceptable(
    point: Array, poses: Array, rays: Array, focal_px: float, config: BackEndConfig
) -> bool:
    directions = point - poses[:, :3, 3]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    widest = np.arccos(np.clip((directions @ directions.T).min(), -1, 1))
    if widest < np.deg2rad(config.min_parallax_deg):
        return False
    local = np.stack([in_camera(pose, point) for pose in poses])
    if local[:, 2].min() <= 0:
        return False
    errors = np.linalg.norm(local[:, :2] / local[:, 2:] - rays, axis=1) * focal_px
    return bool(errors.max() <= config.max_error_px)
