"""The plain layout: lists in text files.

``images.txt`` (timestamp, colour file, depth file), ``intrinsics.txt`` (width height fx fy cx cy k1
k2 p1 p2 [k3]) and ``groundtruth.tum``. Depth is 1 mm per unit by default; depth and
ground truth may be missing.
"""

from __future__ import annotations

from pathlib import Path

from superglue_ros.data.sequences.base import FolderSequence, Row, check_order, read_intrinsics
from superglue_ros.data.trajectories import parse_stamp, read_trajectory, text_rows
from superglue_ros.errors import DataError


class PlainLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By ``images.txt``."""
        return (path / "images.txt").is_file()

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is not used."""
        listed, truth = path / "images.txt", path / "groundtruth.tum"
        camera = read_intrinsics(path / "intrinsics.txt")
        rows = []
        for number, words in text_rows(listed):
            where = f"{listed}, line {number}"
            if len(words) not in (2, 3):
                raise DataError(
                    f"{where}: {len(words)} values, but a line is 'timestamp colour [depth]'"
                )
            depth = path / words[2] if len(words) == 3 else None
            rows.append(
                Row(
                    stamp_ns=parse_stamp(words[0], where),
                    image=path / words[1],
                    depth=depth,
                    camera=camera,
                )
            )
        check_order(rows, listed)
        trajectory = read_trajectory(truth) if truth.is_file() else None
        return FolderSequence(path.name, rows, trajectory, depth_unit_m or 0.001)
