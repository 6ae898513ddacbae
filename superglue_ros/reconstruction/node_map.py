"""A model as a map of the node: its images as keyframes, with pose, and depth at the keypoints.

The node relocalises in such a map (``~/load_map``) and gives metric poses in it, because its
keyframes have depth. So it is for models in metres. The model counts as exact: the covariance of
its poses is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.config import Config
from superglue_ros.data.colmap import from_colmap, from_pycolmap
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping import map_io
from superglue_ros.mapping.global_descriptor import Pooling
from superglue_ros.mapping.keyframes import Keyframe, KeyframeStore
from superglue_ros.reconstruction.store import Store
from superglue_ros.types import FrameId, known_depth


def write_node_map(
    path: Path, model: Any, store: Store, stamps_ns: Mapping[str, int], config: Config
) -> int:
    """Write the placed images of pycolmap's ``model`` to a map file; returns their number.

    At most ``keyframes.max_keyframes``, the most redundant ones left out. A keyframe's id is its
    place among the placed images in the order of their stamps, its landmarks are the model's
    points.
    """
    keyframes = KeyframeStore(config.keyframes)
    pool = Pooling(config.place_weights)
    images = [model.images[number] for number in model.reg_image_ids()]
    first: FrameId | None = None
    for place, image in enumerate(sorted(images, key=lambda one: stamps_ns[one.name])):
        name = FrameId(id=place, stamp_ns=stamps_ns[image.name])
        keyframe = _keyframe(name, image, model, store, pool)
        keyframes.insert(keyframe, [] if first is None else [k.id for k in keyframes])
        first = first or name
    return map_io.save(path, keyframes, len(images) - 1, int(max(model.points3D.keys())) + 1)


def _keyframe(name: FrameId, image: Any, model: Any, store: Store, pool: Pooling) -> Keyframe:
    number = store.images[image.name]
    features = store.features(number)
    ids = np.array([p.point3D_id if p.has_point3D() else -1 for p in image.points2D], np.int64)
    kept = np.flatnonzero(ids >= 0)
    _, once = np.unique(ids[kept], return_index=True)  # a landmark has one keypoint in an image
    kept = kept[once]
    landmarks = np.full(len(ids), -1, np.int64)
    landmarks[kept] = ids[kept]
    T_camera_world = image.cam_from_world().matrix()
    pose = UncertainPose(T_camera_world[:, :3], T_camera_world[:, 3], np.zeros((6, 6))).inverse()
    depth = np.zeros(len(ids))
    if len(kept):
        points = np.stack([model.points3D[int(one)].xyz for one in ids[kept]])
        depth[kept] = pose.back(points)[:, 2]
    limit = np.array([features.width, features.height], np.float32) - np.float32(0.5)
    features = replace(
        features,
        keypoints=np.clip(store.keypoints(number), np.float32(-0.5), limit),
        track_ids=landmarks,
    )
    camera = from_colmap(from_pycolmap(model.cameras[image.camera_id]))
    return Keyframe(
        id=name,
        features=features,
        prepared=None,
        camera=camera,
        depth=known_depth(depth),
        global_descriptor=pool(features),
        rectified=not camera.distorted,
        pose=pose,
    )
