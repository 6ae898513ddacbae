"""Image sequences, and the interface of the layouts that open them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import decoding
from superglue_ros.data.imu import ImuRecording, read_euroc_readings
from superglue_ros.data.imu_calibration import read_imu_calibration
from superglue_ros.data.trajectories import Trajectory, parse_floats, text_rows
from superglue_ros.errors import CalibrationError, DataError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.registry import SEQUENCES


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
        """Name in reports."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[SequenceItem]: ...


class IndexedSequence(ImageSequence, Protocol):
    """One whose frames can be asked for in any order."""

    def __getitem__(self, index: int) -> SequenceItem: ...


@dataclass(frozen=True, eq=False)
class Row:
    """Metadata of a frame before its files are read.

    ``camera``: its calibration, or only the intrinsics (3, 3) where the size is that of the image.
    ``right``: the right image of a rectified pair, with the same camera.
    """

    stamp_ns: int
    image: Path
    depth: Path | None
    camera: Camera | NDArray[np.float64] | None
    right: Path | None = None


class FolderSequence:
    """A folder of images; files are read when a frame is asked for.

    ``outdoor``: its ground truth is a reconstruction from photographs, without metric scale, and
    matches are labelled by the paper's outdoor thresholds. ``covisibility`` (N, N) float32: the
    part of a frame's (row's) reconstructed points that another (column) sees; None where the
    layout has no such scores. ``baseline_m``: of the rectified stereo pairs, 0 where there are
    none. ``imu``: the folder of an IMU's ``data.csv`` and ``sensor.yaml`` as EuRoC has them, or
    None.
    """

    def __init__(
        self,
        name: str,
        rows: Sequence[Row],
        trajectory: Trajectory | None,
        depth_unit_m: float,
        outdoor: bool = False,
        covisibility: NDArray[np.float32] | None = None,
        baseline_m: float = 0.0,
        imu: Path | None = None,
    ) -> None:
        self.baseline_m = baseline_m
        self._imu = imu
        self.name = name
        self.trajectory = trajectory
        self.depth_unit_m = depth_unit_m
        self.outdoor = outdoor
        self.covisibility = covisibility
        self._rows = list(rows)

    @property
    def camera(self) -> Camera | None:
        """The calibration that all frames share; None if there is none."""
        first = self._rows[0].camera
        same = all(row.camera is first for row in self._rows)
        return first if same and isinstance(first, Camera) else None

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps (N,) of all frames, increasing."""
        return np.array([row.stamp_ns for row in self._rows], np.int64)

    @property
    def image_paths(self) -> list[Path]:
        """Colour files of all frames."""
        return [row.image for row in self._rows]

    @property
    def distorted(self) -> bool:
        """Whether any of the images has lens distortion."""
        return any(isinstance(row.camera, Camera) and row.camera.distorted for row in self._rows)

    def intrinsics(self, index: int) -> NDArray[np.float64]:
        """Intrinsics (3, 3) of a frame; raises :class:`DataError` where there are none."""
        camera = self._rows[index].camera
        if camera is None:
            raise DataError(f"sequence {self.name} has no calibration")
        return camera.matrix if isinstance(camera, Camera) else camera

    def own_camera(self, index: int) -> Camera | NDArray[np.float64] | None:
        """The calibration of a frame, or only its intrinsics (3, 3); None if there is none."""
        return self._rows[index].camera

    def select(self, indices: Sequence[int]) -> FolderSequence:
        """The frames ``indices`` in their order."""
        rows = [self._rows[i] for i in indices]
        scores = self.covisibility
        return FolderSequence(
            self.name,
            rows,
            self.trajectory,
            self.depth_unit_m,
            self.outdoor,
            None if scores is None else scores[np.ix_(indices, indices)],
            self.baseline_m,
            self._imu,
        )

    def read_imu(self) -> ImuRecording | None:
        """The IMU's readings and calibration; None without one. Raises :class:`DataError`."""
        if self._imu is None:
            return None
        calibration = read_imu_calibration(self._imu / "sensor.yaml")
        return ImuRecording(read_euroc_readings(self._imu / "data.csv"), calibration)

    def right_image(self, index: int) -> NDArray[np.uint8]:
        """The right image of a frame, grey or BGR; raises :class:`DataError` without one."""
        path = self._rows[index].right
        if path is None or not self.baseline_m > 0:
            raise DataError(f"sequence {self.name} has no rectified stereo pairs: omit --stereo")
        return np.asarray(
            _read(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION), np.uint8
        )

    def pose(self, index: int) -> NDArray[np.float64] | None:
        """``T_world_camera`` (4, 4) of a frame, None where there is no ground truth."""
        return None if self.trajectory is None else self.trajectory.at(self._rows[index].stamp_ns)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SequenceItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SequenceItem:
        """Frame ``index``; raises :class:`DataError` where a file is missing or does not fit."""
        row = self._rows[index]
        image = _read(row.image, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        height, width = image.shape[:2]
        camera = row.camera
        if camera is not None and not isinstance(camera, Camera):
            camera = Camera(width=width, height=height, matrix=camera, distortion=np.zeros(0))
        if camera is not None and (width, height) != (camera.width, camera.height):
            raise DataError(
                f"{row.image} is {width}x{height}, but the calibration is for "
                f"{camera.width}x{camera.height}"
            )
        depth = None if row.depth is None else self._depth(row.depth, width, height)
        return SequenceItem(
            stamp_ns=row.stamp_ns,
            image=image,
            camera=camera,
            depth=depth,
            T_world_camera=self.pose(index),
        )

    def _depth(self, path: Path, width: int, height: int) -> NDArray[np.float32]:
        depth = _read_hdf5(path) if path.suffix == ".h5" else _read_png(path)
        if depth.shape[1] * height == depth.shape[0] * width:
            # A sensor of another resolution, registered to the colour image.
            depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        if depth.shape != (height, width):
            raise DataError(
                f"{path} is {depth.shape[1]}x{depth.shape[0]}, but its image is {width}x{height}: "
                f"give depth registered to the image"
            )
        return np.asarray(depth, np.float32) * np.float32(self.depth_unit_m)


class Layout(Protocol):
    """How the files of a sequence are arranged."""

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` looks like a sequence of this layout."""
        ...

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """The sequence; see :func:`open_sequence`."""
        ...


def open_sequence(
    path: str | Path,
    depth_unit_m: float | None = None,
    layout: str = "",
    root: str | Path | None = None,
) -> FolderSequence:
    """Open a sequence, in the ``layout`` of that name or the one that its files show.

    ``depth_unit_m`` is one unit of the depth images in metres; None takes the layout's own.
    ``root``: the folder that file names are relative to, for layouts whose lists are not with the
    images. Raises :class:`DataError` naming file and line where something is missing or malformed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"sequence {path} does not exist")
    start = None if root is None else Path(root)
    for name in [layout] if layout else SEQUENCES:
        chosen: Layout = SEQUENCES.make(name)
        if layout or chosen.recognises(path):
            return chosen.open(path, depth_unit_m, start)
    known = "; ".join(f"{name}: {choice.description}" for name, choice in SEQUENCES.items())
    raise DataError(f"{path} is no sequence of a known layout. {known}")


def read_intrinsics(path: Path) -> Camera:
    """A camera from ``width height fx fy cx cy k1 k2 p1 p2 [k3]``; raises :class:`DataError`."""
    rows = list(text_rows(path))
    if len(rows) != 1 or len(rows[0][1]) not in (6, 10, 11):
        raise DataError(f"{path} must hold one line: width height fx fy cx cy k1 k2 p1 p2 [k3]")
    number, words = rows[0]
    values = parse_floats(words, f"{path}, line {number}")
    return camera_of(int(values[0]), int(values[1]), values[2:], str(path))


def write_intrinsics(path: Path, camera: Camera) -> None:
    """Write a camera without distortion for :func:`read_intrinsics`."""
    k = camera.matrix
    numbers = f"{k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]}"
    path.write_text(f"{camera.width} {camera.height} {numbers}\n", encoding="utf-8")


def camera_of(width: int, height: int, values: NDArray[np.float64], where: str) -> Camera:
    """A camera of ``fx fy cx cy`` and OpenCV's coefficients; raises :class:`DataError`."""
    fx, fy, cx, cy = values[:4]
    distortion = values[4:] if np.any(values[4:]) else np.zeros(0)
    try:
        return Camera(
            width=width,
            height=height,
            matrix=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            distortion=distortion,
        )
    except CalibrationError as error:
        raise DataError(f"{where}: {error}") from error


def check_order(rows: Sequence[Row], path: Path) -> None:
    """Raise :class:`DataError` unless there are frames and their stamps increase."""
    if not rows:
        raise DataError(f"{path} lists no image")
    for before, after in pairwise(rows):
        if after.stamp_ns <= before.stamp_ns:
            raise DataError(
                f"{path}: the timestamp of {after.image.name} is not later than that of "
                f"{before.image.name}, the line before"
            )


def read_matrix(path: Path) -> NDArray[np.float64]:
    """A matrix of 3 or 4 rows and columns in a text file, finite or not; :class:`DataError`."""
    rows = [words for _, words in text_rows(path)]
    try:
        matrix = np.array([[float(word) for word in words] for words in rows])
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a matrix: {error}") from error
    if matrix.shape not in ((3, 3), (4, 4), (3, 4)):
        raise DataError(f"{path} holds a matrix of {matrix.shape}, not 3x3 or 4x4")
    return matrix


def _read(path: Path, flags: int) -> NDArray:
    try:
        return np.asarray(decoding.read(path, flags))
    except ImageError as error:
        raise DataError(str(error)) from error


def _read_png(path: Path) -> NDArray:
    raw = _read(path, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DataError(f"{path}: depth must be a 16-bit grey PNG, not {raw.dtype}")
    return raw


def _read_hdf5(path: Path) -> NDArray:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} needs h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            depth = file["depth"]
            height, width = depth.shape  # declared; it may be without any data
            if height * width > decoding.MAX_PIXELS:
                raise ValueError(f"it has more than {decoding.MAX_PIXELS} pixels")
            return np.asarray(depth, np.float32)
    except Exception as error:  # a parser of a foreign format, on any bytes
        raise DataError(f"{path} cannot be read as depth: {error}") from error
