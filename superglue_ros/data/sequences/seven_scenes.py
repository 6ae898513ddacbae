"""7-Scenes (Shotton et al., CVPR 2013).

``seq-NN/frame-NNNNNN.color.png``, ``.depth.png`` (millimetres, of the depth camera: not registered
and not read) and ``.pose.txt`` (4x4, ``T_world_camera``). ``TrainSplit.txt`` and ``TestSplit.txt``
of a scene list its sequences, ``sequenceN`` a line. The data set has no calibration; the usual one
is a focal length of 525 pixels about the image's middle.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from superglue_ros.data.sequences.base import FolderSequence, Row, read_matrix
from superglue_ros.data.trajectories import Trajectory, text_rows
from superglue_ros.errors import DataError

_FRAME_NS = 33_333_333
_INTRINSICS = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])
_IMAGES = "frame-*.color.png"


class SevenScenesLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By the name of a split, or by the names of the images."""
        if path.is_file():
            return path.name in ("TrainSplit.txt", "TestSplit.txt")
        return any(path.glob(_IMAGES))

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is that of a split."""
        folders = [path] if path.is_dir() else _folders(path, root or path.parent)
        rows: list[Row] = []
        poses = []
        for folder in folders:
            for image in sorted(folder.glob(_IMAGES)):
                pose = read_matrix(folder / image.name.replace(".color.png", ".pose.txt"))
                if pose.shape != (4, 4) or not np.isfinite(pose).all():
                    continue
                stamp = len(rows) * _FRAME_NS
                rows.append(Row(stamp_ns=stamp, image=image, depth=None, camera=_INTRINSICS))
                poses.append(pose)
        if not rows:
            raise DataError(f"{path} has no frame-NNNNNN.color.png with a .pose.txt")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        return FolderSequence(
            path.stem, rows, Trajectory(stamps, np.array(poses)), depth_unit_m or 1.0
        )


def _folders(split: Path, root: Path) -> list[Path]:
    folders = []
    for number, words in text_rows(split):
        found = re.fullmatch(r"(?:sequence|seq-?)(\d{1,6})", words[0])
        if found is None:
            raise DataError(f"{split}, line {number}: {words[0][:40]!r} is not 'sequenceN'")
        folders.append(root / f"seq-{int(found[1]):02d}")
        if not folders[-1].is_dir():
            raise DataError(f"{split}, line {number}: {folders[-1]} does not exist")
    return folders
