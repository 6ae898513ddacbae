"""MegaDepth (Li and Snavely, CVPR 2018) by the scene files of D2-Net's preprocessing.

A scene is one ``scene_info/NNNN.npz`` with image and depth paths (``.h5``), intrinsics and poses
(``T_camera_world``). Paths are relative to ``root``, by default the folder above
``scene_info``. Photographs are unordered in time: stamps are consecutive seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.data.arrays import load_arrays
from superglue_ros.data.sequences.base import FolderSequence, Row
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import DataError

_COLUMNS = ("image_paths", "depth_paths", "intrinsics", "poses")


class MegaDepthLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By a file that ends in ``.npz``."""
        return path.is_file() and path.suffix == ".npz"

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`."""
        start = root or path.parent.parent
        arrays = load_arrays(path, _COLUMNS, objects=True)
        missing = [name for name in _COLUMNS if name not in arrays]
        if missing:
            raise DataError(f"{path} is no MegaDepth scene file: it has no {', '.join(missing)}")
        rows: list[Row] = []
        poses = []
        for image, depth, matrix, T_camera_world in zip(
            *(arrays[name] for name in _COLUMNS), strict=True
        ):
            if image is None or depth is None:
                continue
            stamp = len(rows) * 1_000_000_000
            intrinsics = np.asarray(matrix, np.float64)
            rows.append(Row(stamp, start / str(image), start / str(depth), intrinsics))
            poses.append(np.linalg.inv(np.asarray(T_camera_world, np.float64)))
        if not rows:
            raise DataError(f"{path} has no image with depth")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        return FolderSequence(
            path.stem, rows, Trajectory(stamps, np.array(poses)), depth_unit_m or 1.0, outdoor=True
        )
