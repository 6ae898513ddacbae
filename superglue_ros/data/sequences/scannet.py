"""The layout that ScanNet's own tools export (Dai et al., CVPR 2017).

``color/N.jpg``, ``depth/N.png`` (millimetres, registered to the colour image), ``pose/N.txt``
(4x4, ``T_world_camera``) and ``intrinsic/intrinsic_color.txt``. Frames without a valid pose, which
ScanNet writes as infinities, are left out; stamps are generated at 30 frames per
second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.data.sequences.base import FolderSequence, Row, read_matrix
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import DataError

_FRAME_NS = 33_333_333


class ScanNetLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By ``intrinsic/intrinsic_color.txt``."""
        return (path / "intrinsic" / "intrinsic_color.txt").is_file()

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is not used."""
        matrix = read_matrix(path / "intrinsic" / "intrinsic_color.txt")[:3, :3]
        images = [file for file in (path / "color").glob("*.jpg") if file.stem.isdecimal()]
        rows, poses = [], []
        for image in sorted(images, key=lambda file: int(file.stem)):
            pose = read_matrix(path / "pose" / f"{image.stem}.txt")
            if pose.shape != (4, 4) or not np.isfinite(pose).all():
                continue
            depth = path / "depth" / f"{image.stem}.png"
            stamp = int(image.stem) * _FRAME_NS
            rows.append(
                Row(
                    stamp_ns=stamp,
                    image=image,
                    depth=depth if depth.is_file() else None,
                    camera=matrix,
                )
            )
            poses.append(pose)
        if not rows:
            raise DataError(f"{path} has no frame with a pose in color/ and pose/")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        trajectory = Trajectory(stamps, np.array(poses))
        return FolderSequence(path.name, rows, trajectory, depth_unit_m or 0.001)
