"""Cambridge Landmarks (Kendall et al., ICCV 2015).

``dataset_train.txt`` and ``dataset_test.txt`` of a scene: three lines of heading, then
``seq1/frame00001.png X Y Z W P Q R``, the camera's position and the quaternion (real part first) of
``T_camera_world``. There is no calibration: give one, or let it be adjusted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.data.sequences.base import FolderSequence, Row
from superglue_ros.data.trajectories import (
    Trajectory,
    parse_floats,
    pose_from_quaternion,
    text_rows,
)
from superglue_ros.errors import DataError

_HEADING = 3


class CambridgeLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By the name of a list."""
        return path.is_file() and path.name in ("dataset_train.txt", "dataset_test.txt")

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`."""
        start, poses = root or path.parent, []
        rows: list[Row] = []
        for number, words in text_rows(path):
            if number <= _HEADING:
                continue
            where = f"{path}, line {number}"
            if len(words) != 8:
                raise DataError(
                    f"{where}: {len(words)} values, but a line is 'image X Y Z W P Q R'"
                )
            values = parse_floats(words[1:], where)
            if abs(np.linalg.norm(values[3:]) - 1) > 0.01:
                raise DataError(f"{where}: the quaternion W P Q R has not norm 1")
            rotation = pose_from_quaternion(np.zeros(3), values[[4, 5, 6, 3]])[:3, :3]
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation.T, values[:3]
            stamp = len(rows) * 1_000_000_000
            rows.append(Row(stamp_ns=stamp, image=start / words[0], depth=None, camera=None))
            poses.append(pose)
        if not rows:
            raise DataError(f"{path} lists no image")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        return FolderSequence(
            path.stem,
            rows,
            Trajectory(stamps, np.array(poses)),
            depth_unit_m or 1.0,
            outdoor=True,
        )
