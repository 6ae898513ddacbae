"""MegaDepth (Li and Snavely, CVPR 2018) by the scene files of D2-Net's preprocessing.

A scene is one ``scene_info/NNNN.npz`` with image and depth paths (``.h5``), intrinsics and poses
(``T_camera_world``), and ``overlap_matrix``, the part of an image's reconstructed points that
another image sees. Paths are relative to ``root``, by default the folder above ``scene_info``.
Photographs are unordered in time: stamps are consecutive seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import load_arrays
from superglue_ros.data.sequences.base import FolderSequence, Row
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import DataError

_COLUMNS = ("image_paths", "depth_paths", "intrinsics", "poses")
_SCORES = "overlap_matrix"


class MegaDepthLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By a file that ends in ``.npz``."""
        return path.is_file() and path.suffix == ".npz"

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`."""
        start = root or path.parent.parent
        arrays = load_arrays(path, (*_COLUMNS, _SCORES), objects=True)
        missing = [name for name in _COLUMNS if name not in arrays]
        if missing:
            raise DataError(f"{path} is no MegaDepth scene file: it has no {', '.join(missing)}")
        rows: list[Row] = []
        poses = []
        kept = []
        for index, (image, depth, matrix, T_camera_world) in enumerate(
            zip(*(arrays[name] for name in _COLUMNS), strict=True)
        ):
            if image is None or depth is None:
                continue
            kept.append(index)
            stamp = len(rows) * 1_000_000_000
            intrinsics = np.asarray(matrix, np.float64)
            rows.append(
                Row(
                    stamp_ns=stamp,
                    image=start / str(image),
                    depth=start / str(depth),
                    camera=intrinsics,
                )
            )
            poses.append(np.linalg.inv(np.asarray(T_camera_world, np.float64)))
        if not rows:
            raise DataError(f"{path} has no image with depth")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        return FolderSequence(
            path.stem,
            rows,
            Trajectory(stamps, np.array(poses)),
            depth_unit_m or 1.0,
            outdoor=True,
            covisibility=_covisibility(arrays, len(arrays["poses"]), kept, path),
        )


def _covisibility(
    arrays: Mapping[str, NDArray[Any]], count: int, kept: list[int], path: Path
) -> NDArray[np.float32] | None:
    """The scores of the images that are used; pairs that D2-Net left out (-1) see nothing."""
    if _SCORES not in arrays:
        return None
    try:
        scores = np.asarray(arrays[_SCORES], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {_SCORES} must hold numbers: {error}") from error
    if scores.shape != (count, count) or not np.isfinite(scores).all():
        raise DataError(
            f"{path}: {_SCORES} must hold a finite number for every pair of the {count} images, "
            f"not an array of {scores.shape}"
        )
    return scores[np.ix_(kept, kept)].clip(0, 1)
