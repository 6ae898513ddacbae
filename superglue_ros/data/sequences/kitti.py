"""The layout of KITTI's odometry benchmark (Geiger et al., CVPR 2012).

``sequences/NN`` with ``image_0`` (grey) or ``image_2`` (colour), ``times.txt`` and ``calib.txt``;
poses, of camera 0, in ``poses/NN.txt`` beside ``sequences``, for the sequences that have them. The
right image of the rectified pair is in ``image_1`` or ``image_3``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.sequences.base import FolderSequence, Row, check_order
from superglue_ros.data.trajectories import Trajectory, parse_floats, parse_stamp, text_rows
from superglue_ros.errors import DataError


class KittiLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By ``calib.txt`` and ``times.txt``."""
        return (path / "calib.txt").is_file() and (path / "times.txt").is_file()

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is not used."""
        left = next((k for k in (0, 2) if (path / f"image_{k}").is_dir()), None)
        if left is None:
            raise DataError(f"{path} has neither image_0 (grey) nor image_2 (colour)")
        projections = _projections(path / "calib.txt")
        if f"P{left}" not in projections:
            raise DataError(f"{path / 'calib.txt'} has no line P{left}")
        matrix = projections[f"P{left}"][:, :3]
        right = f"P{left + 1}"
        has_right = right in projections and (path / f"image_{left + 1}").is_dir()
        rows = []
        for index, (number, words) in enumerate(text_rows(path / "times.txt")):
            stamp = parse_stamp(words[0], f"{path / 'times.txt'}, line {number}")
            name = f"{index:06d}.png"
            other = path / f"image_{left + 1}" / name if has_right else None
            rows.append(
                Row(
                    stamp_ns=stamp,
                    image=path / f"image_{left}" / name,
                    depth=None,
                    camera=matrix,
                    right=other,
                )
            )
        check_order(rows, path / "times.txt")
        # P = K [I | t]: a camera stands at -t, in the axes of camera 0.
        shift = {
            name: np.asarray(np.linalg.solve(p[:, :3], p[:, 3]), np.float64)
            for name, p in projections.items()
        }
        truth = path.resolve().parent.parent / "poses" / f"{path.resolve().name}.txt"
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        trajectory = _poses(truth, stamps, -shift[f"P{left}"]) if truth.is_file() else None
        baseline = float(shift[f"P{left}"][0] - shift[right][0]) if has_right else 0.0
        return FolderSequence(path.name, rows, trajectory, depth_unit_m or 1.0, baseline_m=baseline)


def _projections(path: Path) -> dict[str, NDArray[np.float64]]:
    """The matrices (3, 4) of ``P0: ...`` by their names."""
    found = {}
    for number, words in text_rows(path):
        if words[0].startswith("P") and words[0].endswith(":"):
            where = f"{path}, line {number}"
            if len(words) != 13:
                raise DataError(f"{where}: {len(words) - 1} values, but a projection has 12")
            found[words[0][:-1]] = parse_floats(words[1:], where).reshape(3, 4)
    return found


def _poses(path: Path, stamps_ns: NDArray[np.int64], camera: NDArray[np.float64]) -> Trajectory:
    """A row-major 3x4 ``T_world_camera0`` per image; ``camera`` (3,) in the axes of camera 0."""
    poses = []
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) != 12:
            raise DataError(f"{where}: {len(words)} values, but a pose has 12")
        pose = np.eye(4)
        pose[:3] = parse_floats(words, where).reshape(3, 4)
        pose[:3, 3] += pose[:3, :3] @ camera
        poses.append(pose)
    if len(poses) != len(stamps_ns):
        raise DataError(f"{path} has {len(poses)} poses for {len(stamps_ns)} images")
    return Trajectory(stamps_ns, np.array(poses))
