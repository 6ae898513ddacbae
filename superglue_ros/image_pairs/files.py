"""Matches as files: npz and CSV, one a pair; hloc's HDF5 and a COLMAP database, one a run.

npz and CSV hold the refined pixels of each pair. HDF5 and COLMAP hold every keypoint once, as
detected, and matches by index, because there an image's keypoints serve all of its pairs.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.colmap import (
    create,
    insert_camera,
    pair_id,
    to_colmap,
    write_keypoints,
    write_matches,
)
from superglue_ros.data.trajectories import quaternion_of
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.image_pairs.matching import ImagePair
from superglue_ros.types import Features, PoseStatus

Named = tuple[str, str, ImagePair]
"""Names of both images and their pair."""

# COLMAP's numbers of what explains a pair.
_EXPLAINED_BY = {PoseStatus.VALID: 2, PoseStatus.PLANAR: 4, PoseStatus.ROTATION_ONLY: 5}


def pair_arrays(name0: str, name1: str, pair: ImagePair) -> dict[str, NDArray[Any]]:
    """Everything about a pair by name, as :func:`write_npz` stores it.

    ``points0``, ``points1`` (K, 2) pixels; ``index0``, ``index1``, ``scores``, ``inlier``,
    ``sigma_px`` (K,); ``keypoints0``, ``keypoints1`` (N, 2); with a pose ``rotation`` (3, 3),
    ``translation`` (3,), ``covariance`` (6, 6) as in :class:`~superglue_ros.types.RelativePose`,
    and ``pose_status``.
    """
    arrays = {
        "image0": np.array(name0),
        "image1": np.array(name1),
        "points0": pair.points0,
        "points1": pair.points1,
        "index0": pair.index0,
        "index1": pair.index1,
        "scores": pair.scores,
        "inlier": pair.inlier,
        "sigma_px": pair.matches.sigma_px,
        "keypoints0": pair.features0.keypoints,
        "keypoints1": pair.features1.keypoints,
    }
    if pair.pose is not None:
        arrays |= {
            "rotation": pair.pose.rotation,
            "translation": pair.pose.translation,
            "covariance": pair.pose.covariance,
            "pose_status": np.array(pair.pose.status.name),
        }
    return arrays


def write_npz(path: Path, name0: str, name1: str, pair: ImagePair) -> None:
    """Write :func:`pair_arrays`; read them with ``numpy.load``."""
    np.savez_compressed(path, **pair_arrays(name0, name1, pair))  # type: ignore[arg-type]


def write_csv(path: Path, pair: ImagePair) -> None:
    """A line for each match: x0 y0 x1 y1 score inlier sigma_px."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["x0", "y0", "x1", "y1", "score", "inlier", "sigma_px"])
        for (x0, y0), (x1, y1), score, inlier, sigma in zip(
            pair.points0.tolist(),
            pair.points1.tolist(),
            pair.scores.tolist(),
            pair.inlier.tolist(),
            pair.matches.sigma_px.tolist(),
            strict=True,
        ):
            numbers = [f"{value:.3f}" for value in (x0, y0, x1, y1)]
            writer.writerow([*numbers, f"{score:.4f}", int(inlier), f"{sigma:.3f}"])


def write_hloc(folder: Path, pairs: Sequence[Named]) -> None:
    """``features.h5``, ``matches.h5`` and ``pairs.txt`` as hloc's own steps write them.

    Raises :class:`DataError` without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError("h5 needs h5py: pip install h5py") from error
    with h5py.File(folder / "features.h5", "w") as file:
        for name, features in _images(pairs).items():
            group = file.create_group(name)
            group["keypoints"] = features.keypoints
            group["keypoints"].attrs["uncertainty"] = _uncertainty(features)
            group["scores"] = features.scores
            group["image_size"] = np.array([features.width, features.height])
            if features.descriptors is not None:
                group["descriptors"] = features.descriptors.T
    with h5py.File(folder / "matches.h5", "w") as file:
        for name0, name1, pair in pairs:
            group = file.create_group("/".join(n.replace("/", "-") for n in (name0, name1)))
            partners = np.full(len(pair.features0), -1, np.int32)
            partners[pair.index0] = pair.index1
            scores = np.zeros(len(pair.features0), np.float16)
            scores[pair.index0] = pair.scores
            group["matches0"], group["matching_scores0"] = partners, scores
    lines = [f"{name0} {name1}\n" for name0, name1, _ in pairs]
    (folder / "pairs.txt").write_text("".join(lines), encoding="utf-8")


def write_colmap(
    path: Path, pairs: Sequence[Named], cameras: Mapping[str, Camera | None] | None = None
) -> None:
    """A new COLMAP database: cameras, images, keypoints, matches, and verified pairs with poses.

    ``cameras`` by image name; an image without one gets COLMAP's guess of 1.2 times its longer
    side. COLMAP's origin is the corner of the top-left pixel: half a pixel is added. Replaces a
    database at ``path``.
    """
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        create(database)
        ids = _write_images(database, _images(pairs), cameras or {})
        for name0, name1, pair in pairs:
            _write_pair(database, ids[name0], ids[name1], pair)


def _uncertainty(features: Features) -> float:
    return float(np.median(features.sigma_px)) if len(features) else 1.0


def _images(pairs: Sequence[Named]) -> dict[str, Features]:
    found: dict[str, Features] = {}
    for name0, name1, pair in pairs:
        found.setdefault(name0, pair.features0)
        found.setdefault(name1, pair.features1)
    return found


def _write_images(
    database: sqlite3.Connection,
    images: Mapping[str, Features],
    cameras: Mapping[str, Camera | None],
) -> dict[str, int]:
    ids, camera_ids = {}, {}
    for number, (name, features) in enumerate(sorted(images.items()), start=1):
        camera = cameras.get(name)
        key = (id(camera), features.width, features.height) if camera else (name,)
        if key not in camera_ids:
            made = to_colmap(camera, features.width, features.height)
            camera_ids[key] = insert_camera(database, made, camera is not None)
        ids[name] = number
        database.execute("INSERT INTO images VALUES (?, ?, ?)", (number, name, camera_ids[key]))
        write_keypoints(database, number, features.keypoints)
    return ids


def _write_pair(database: sqlite3.Connection, id0: int, id1: int, pair: ImagePair) -> None:
    index = np.stack([pair.index0, pair.index1], axis=1).astype(np.uint32)
    swapped = id0 > id1
    if swapped:
        index, id0, id1 = index[:, ::-1], id1, id0
    write_matches(database, id0, id1, index)
    pose = pair.pose
    if pose is None or pose.status not in _EXPLAINED_BY:
        return
    # COLMAP's pose maps points of the first camera to the second.
    rotation, translation = pose.rotation.T, -pose.rotation.T @ pose.translation
    if swapped:
        rotation, translation = pose.rotation, pose.translation
    x, y, z = translation / max(float(np.linalg.norm(translation)), 1e-12)
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    inliers = np.ascontiguousarray(index[pair.inlier])
    database.execute(
        "INSERT INTO two_view_geometries VALUES (?, ?, ?, ?, ?, NULL, ?, NULL, ?, ?)",
        (
            *(pair_id(id0, id1), *inliers.shape, inliers.tobytes()),
            *(_EXPLAINED_BY[pose.status], essential.tobytes()),
            *(_quaternion_wxyz(rotation).tobytes(), translation.tobytes()),
        ),
    )


def _quaternion_wxyz(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z, w = quaternion_of(rotation)
    return np.array([w, x, y, z])
