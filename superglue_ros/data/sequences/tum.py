"""The layout of the TUM RGB-D benchmark (Sturm et al., IROS 2012).

``rgb.txt``, ``depth.txt``, ``groundtruth.txt``, associated by time; depth 0.2 mm per unit. The
calibration is read from ``intrinsics.txt`` (see the plain layout), or else the published one of the
camera named in the folder's name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.data.sequences.base import (
    FolderSequence,
    Row,
    camera_of,
    check_order,
    read_intrinsics,
)
from superglue_ros.data.trajectories import parse_stamp, read_trajectory, text_rows
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera

_MAX_DEPTH_DELAY_NS = 20_000_000  # depth further away in time belongs to another frame

# fx fy cx cy k1 k2 p1 p2 k3 as published with the benchmark.
_INTRINSICS = {
    ("freiburg1", "fr1"): (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    ("freiburg2", "fr2"): (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    ("freiburg3", "fr3"): (535.4, 539.2, 320.1, 247.6, 0.0, 0.0, 0.0, 0.0, 0.0),
}


class TumLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By ``rgb.txt``."""
        return (path / "rgb.txt").is_file()

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`; ``root`` is not used."""
        truth, listed = path / "groundtruth.txt", path / "depth.txt"
        images = _stamped(path / "rgb.txt")
        depths = _stamped(listed) if listed.is_file() else []
        depth_stamps = np.array([stamp for stamp, _ in depths], np.int64)
        camera = _camera(path)
        rows = []
        for stamp_ns, image in images:
            depth = None
            if depths:
                delay = np.abs(depth_stamps - stamp_ns)
                nearest = int(delay.argmin())
                if delay[nearest] <= _MAX_DEPTH_DELAY_NS:
                    depth = depths[nearest][1]
            rows.append(Row(stamp_ns=stamp_ns, image=image, depth=depth, camera=camera))
        check_order(rows, path / "rgb.txt")
        trajectory = read_trajectory(truth) if truth.is_file() else None
        return FolderSequence(path.name, rows, trajectory, depth_unit_m or 0.0002)


def _stamped(path: Path) -> list[tuple[int, Path]]:
    files = []
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) != 2:
            raise DataError(f"{where}: {len(words)} values, but a line is 'timestamp file'")
        files.append((parse_stamp(words[0], where), path.parent / words[1]))
    return files


def _camera(folder: Path) -> Camera:
    if (folder / "intrinsics.txt").is_file():
        return read_intrinsics(folder / "intrinsics.txt")
    for names, values in _INTRINSICS.items():
        if any(name in folder.name for name in names):
            return camera_of(640, 480, np.array(values), names[0])
    raise DataError(
        f"{folder}: no calibration. Add intrinsics.txt (width height fx fy cx cy k1 k2 p1 p2 "
        f"[k3]), or keep freiburg1, freiburg2 or freiburg3 in the folder's name"
    )
