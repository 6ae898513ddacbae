"""The first estimate of a new frame's pose: by landmarks it sees, or along the relative pose."""

from __future__ import annotations

import numpy as np
import poselib

from superglue_ros.examples.bundle_adjuster.config import BackEndConfig
from superglue_ros.examples.bundle_adjuster.scene import Array, Scene, inverse, pose_of
from superglue_ros.types import BoolArray, FrameId, PoseStatus, RelativePose

_MIN_INLIER_SHARE = 0.5
USABLE = (PoseStatus.VALID, PoseStatus.PLANAR, PoseStatus.ROTATION_ONLY)


def resect(
    points: Array, rays: Array, focal_px: float, config: BackEndConfig
) -> tuple[Array, BoolArray] | None:
    """Pose ``T_world_camera`` of a camera that sees world ``points`` (K, 3) along ``rays`` (K, 2).

    Also the inliers (K,). None with too few points, or if fewer than half of them agree.
    """
    if len(points) < config.min_landmarks:
        return None
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal_px, 0.0, 0.0]}
    camera_pose, information = poselib.estimate_absolute_pose(
        rays * focal_px,
        points,
        camera,
        {"max_reproj_error": config.max_error_px, "min_iterations": 50, "seed": config.seed},
    )
    inliers = np.array(information["inliers"], bool)
    if inliers.sum() < max(config.min_landmarks / 2, _MIN_INLIER_SHARE * len(points)):
        return None
    world_to_camera = pose_of(np.asarray(camera_pose.R), np.asarray(camera_pose.t))
    return inverse(world_to_camera), inliers


def along(scene: Scene, relative: RelativePose) -> Array | None:
    """The query's pose from that of the reference; None if the pose is unusable.

    A translation of unknown length gets that of the last step: a camera moves on as it moved.
    """
    if relative.status not in USABLE or relative.reference not in scene.poses:
        return None
    length = 1.0 if relative.scale_known else _last_step(scene, relative.reference)
    step = pose_of(relative.rotation, length * relative.translation)
    return np.asarray(scene.poses[relative.reference] @ step)


def _last_step(scene: Scene, reference: FrameId) -> float:
    """Length of the newest step to or from ``reference``, else of any; 1 for the very first."""
    known = [edge for edge in scene.edges if {edge.reference, edge.query} <= scene.poses.keys()]
    near = [edge for edge in known if reference in (edge.query, edge.reference)]
    for edge in (*reversed(near), *reversed(known)):
        ends = scene.poses[edge.reference][:3, 3], scene.poses[edge.query][:3, 3]
        length = float(np.linalg.norm(ends[0] - ends[1]))
        if length > 0:
            return length
    return 1.0
