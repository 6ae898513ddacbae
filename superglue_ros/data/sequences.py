"""Image sequences on disk: colour, depth, calibration and ground truth, frame by frame.

Two layouts are read, told apart by their files:

- ``images.txt`` (timestamp, colour file, depth file), ``intrinsics.txt`` (width height fx fy cx cy
  k1 k2 p1 p2 [k3]) and ``groundtruth.tum``; depth 1 mm per unit unless told otherwise;
- TUM RGB-D: ``rgb.txt``, ``depth.txt``, ``groundtruth.txt``; depth 0.2 mm per unit; the published
  calibration where the folder's name tells the camera, or else an ``intrinsics.txt``.

Depth and ground truth may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import (
    Trajectory,
    parse_floats,
    parse_stamp,
    read_trajectory,
    text_rows,
)
from superglue_ros.errors import CalibrationError, DataError
from superglue_ros.geometry.camera import Camera

_MAX_DEPTH_DELAY_NS = 20_000_000  # TUM RGB-D: depth taken further away in time is another frame's

# fx fy cx cy k1 k2 p1 p2 k3 as published with the TUM RGB-D benchmark.
_TUM_INTRINSICS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, 0.0, 0.0, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True, eq=False)
class SequenceItem:
    """One frame of a sequence.

    ``image`` (H, W) or (H, W, 3) BGR uint8; ``camera`` None where unknown; ``depth`` (H, W) float32
    metres along z, 0 = unknown, or None; ``T_world_camera`` (4, 4) float64, optical axes, or None.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    camera: Camera | None
    depth: NDArray[np.float32] | None
    T_world_camera: NDArray[np.float64] | None


class ImageSequence(Protocol):
    """Anything that yields frames in the order of their stamps."""

    @property
    def name(self) -> str:
        """What to call it in a report."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[SequenceItem]: ...


@dataclass(frozen=True)
class _Row:
    stamp_ns: int
    image: Path
    depth: Path | None


class FolderSequence:
    """A folder of images; files are read when a frame is asked for."""

    def __init__(
        self,
        name: str,
        rows: list[_Row],
        camera: Camera | None,
        trajectory: Trajectory | None,
        depth_unit_m: float,
    ) -> None:
        self.name = name
        self.camera = camera
        self.trajectory = trajectory
        self.depth_unit_m = depth_unit_m
        self._rows = rows

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps (N,) of all frames, increasing."""
        return np.array([row.stamp_ns for row in self._rows], np.int64)

    @property
    def image_paths(self) -> list[Path]:
        """Colour files of all frames."""
        return [row.image for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SequenceItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SequenceItem:
        """Frame ``index``; raises :class:`DataError` where a file is missing or does not fit."""
        row = self._rows[index]
        image = _read(row.image, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        self._check_size(row.image, image)
        depth = None
        if row.depth is not None:
            raw = _read(row.depth, cv2.IMREAD_UNCHANGED)
            if raw.dtype != np.uint16 or raw.ndim != 2:
                raise DataError(f"{row.depth}: depth must be a 16-bit grey PNG, not {raw.dtype}")
            self._check_size(row.depth, raw)
            depth = raw.astype(np.float32) * np.float32(self.depth_unit_m)
        pose = None if self.trajectory is None else self.trajectory.at(row.stamp_ns)
        return SequenceItem(row.stamp_ns, image, self.camera, depth, pose)

    def _check_size(self, path: Path, image: NDArray) -> None:
        if self.camera is None:
            return
        height, width = image.shape[:2]
        if (width, height) != (self.camera.width, self.camera.height):
            raise DataError(
                f"{path} is {width}x{height}, but the calibration is for "
                f"{self.camera.width}x{self.camera.height}"
            )


def open_sequence(folder: str | Path, depth_unit_m: float | None = None) -> FolderSequence:
    """Open a folder in one of the two layouts.

    ``depth_unit_m`` is one unit of the depth images in metres; None takes the layout's own. Raises
    :class:`DataError` naming file and line where something is missing or malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"sequence folder {folder} does not exist")
    if (folder / "images.txt").is_file():
        return _open_plain(folder, 0.001 if depth_unit_m is None else depth_unit_m)
    if (folder / "rgb.txt").is_file():
        return _open_tum(folder, 0.0002 if depth_unit_m is None else depth_unit_m)
    raise DataError(
        f"{folder} is no sequence: it has neither images.txt (timestamp colour depth) "
        f"nor rgb.txt (TUM RGB-D)"
    )


def read_intrinsics(path: Path) -> Camera:
    """A camera from ``width height fx fy cx cy k1 k2 p1 p2 [k3]``; raises :class:`DataError`."""
    rows = list(text_rows(path))
    if len(rows) != 1 or len(rows[0][1]) not in (6, 10, 11):
        raise DataError(f"{path} must hold one line: width height fx fy cx cy k1 k2 p1 p2 [k3]")
    number, words = rows[0]
    values = parse_floats(words, f"{path}, line {number}")
    return _camera(int(values[0]), int(values[1]), values[2:], str(path))


def _open_plain(folder: Path, depth_unit_m: float) -> FolderSequence:
    rows = []
    for number, words in text_rows(folder / "images.txt"):
        where = f"{folder / 'images.txt'}, line {number}"
        if len(words) not in (2, 3):
            raise DataError(
                f"{where}: {len(words)} values, but a line is 'timestamp colour [depth]'"
            )
        depth = folder / words[2] if len(words) == 3 else None
        rows.append(_Row(parse_stamp(words[0], where), folder / words[1], depth))
    _check_order(rows, folder / "images.txt")
    truth = folder / "groundtruth.tum"
    return FolderSequence(
        folder.name,
        rows,
        read_intrinsics(folder / "intrinsics.txt"),
        read_trajectory(truth) if truth.is_file() else None,
        depth_unit_m,
    )


def _open_tum(folder: Path, depth_unit_m: float) -> FolderSequence:
    images = _stamped_files(folder / "rgb.txt")
    listed = folder / "depth.txt"
    depths = _stamped_files(listed) if listed.is_file() else []
    depth_stamps = np.array([stamp for stamp, _ in depths], np.int64)
    rows = []
    for stamp_ns, image in images:
        depth = None
        if depths:
            delay = np.abs(depth_stamps - stamp_ns)
            nearest = int(delay.argmin())
            if delay[nearest] <= _MAX_DEPTH_DELAY_NS:
                depth = depths[nearest][1]
        rows.append(_Row(stamp_ns, image, depth))
    _check_order(rows, folder / "rgb.txt")
    truth = folder / "groundtruth.txt"
    return FolderSequence(
        folder.name,
        rows,
        _tum_camera(folder),
        read_trajectory(truth) if truth.is_file() else None,
        depth_unit_m,
    )


def _stamped_files(path: Path) -> list[tuple[int, Path]]:
    files = []
    for number, words in text_rows(path):
        where = f"{path}, line {number}"
        if len(words) != 2:
            raise DataError(f"{where}: {len(words)} values, but a line is 'timestamp file'")
        files.append((parse_stamp(words[0], where), path.parent / words[1]))
    return files


def _tum_camera(folder: Path) -> Camera:
    if (folder / "intrinsics.txt").is_file():
        return read_intrinsics(folder / "intrinsics.txt")
    for name, values in _TUM_INTRINSICS.items():
        if name in folder.name:
            return _camera(640, 480, np.array(values), name)
    raise DataError(
        f"{folder}: no calibration. Add intrinsics.txt (width height fx fy cx cy k1 k2 p1 p2 "
        f"[k3]), or keep freiburg1, freiburg2 or freiburg3 in the folder's name"
    )


def _camera(width: int, height: int, values: NDArray[np.float64], where: str) -> Camera:
    fx, fy, cx, cy = values[:4]
    distortion = values[4:] if np.any(values[4:]) else np.zeros(0)
    try:
        return Camera(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), distortion)
    except CalibrationError as error:
        raise DataError(f"{where}: {error}") from error


def _check_order(rows: list[_Row], path: Path) -> None:
    if not rows:
        raise DataError(f"{path} lists no image")
    for before, after in pairwise(rows):
        if after.stamp_ns <= before.stamp_ns:
            raise DataError(
                f"{path}: the timestamp of {after.image.name} is not later than that of "
                f"{before.image.name}, the line before"
            )


def _read(path: Path, flags: int) -> NDArray:
    if not path.is_file():
        raise DataError(f"image {path} does not exist")
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DataError(f"image {path} cannot be read: damaged, or of an unknown format")
    return image
