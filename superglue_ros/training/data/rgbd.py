"""RGB-D sequences with poses, read from the user's copy: TUM, ScanNet, MegaDepth, and a plain one.

Every reader gives frames; nothing is decoded before a frame is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.geometry.depth_overlap import check_depth
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR, LabelThresholds
from superglue_ros.training.data.corpus import read_grey
from superglue_ros.training.data.views import PosedViews

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RgbdFrame:
    """One image with depth: ``matrix`` (3, 3) of the image, ``pose`` ``T_world_camera`` (4, 4).

    ``depth_unit`` metres per step of the stored depth.
    """

    image: Path
    depth: Path
    matrix: Array
    pose: Array
    depth_unit: float

    def read(self, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32], Array]:
        """Grey image, depth [m] and intrinsics, resized to ``size`` (width, height).

        The image is cropped about its centre to the aspect first. Raises :class:`DataError` where
        image and depth can't be read or don't fit each other.
        """
        image = read_grey(self.image)
        depth = _read_depth(self.depth, self.depth_unit)
        if depth.shape != image.shape and depth.shape[1] * image.shape[0] == (
            depth.shape[0] * image.shape[1]
        ):  # a sensor of lower resolution, registered to the colour image
            depth = np.asarray(
                cv2.resize(depth, image.shape[::-1], interpolation=cv2.INTER_NEAREST), np.float32
            )
        check_depth(depth, image.shape[1], image.shape[0], str(self.depth))
        height, width = image.shape
        scale = max(size[0] / width, size[1] / height)
        crop = (round(size[0] / scale), round(size[1] / scale))
        left, top = (width - crop[0]) // 2, (height - crop[1]) // 2
        window = np.s_[top : top + crop[1], left : left + crop[0]]
        sx, sy = size[0] / crop[0], size[1] / crop[1]
        resize = np.array([[sx, 0, sx * 0.5 - 0.5], [0, sy, sy * 0.5 - 0.5], [0, 0, 1]])
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        grey = cv2.resize(image[window], size, interpolation=cv2.INTER_AREA)
        near = cv2.resize(depth[window], size, interpolation=cv2.INTER_NEAREST)
        return (
            np.asarray(grey, np.uint8),
            np.asarray(near, np.float32),
            resize @ shift @ self.matrix,
        )


@dataclass(frozen=True, eq=False)
class RgbdSequence:
    """Frames of one scene in order, and the label thresholds its ground truth deserves."""

    name: str
    frames: Sequence[RgbdFrame]
    thresholds: LabelThresholds = INDOOR

    def views(self, indices: Sequence[int], size: tuple[int, int]) -> PosedViews:
        """The frames ``indices`` at ``size`` (width, height)."""
        read = [self.frames[i].read(size) for i in indices]
        images, depths, matrices = zip(*read, strict=True)
        poses = [self.frames[i].pose for i in indices]
        return PosedViews(images, depths, matrices, poses, self.thresholds)


def read_plain(folder: str | Path, depth_unit: float) -> RgbdSequence:
    """``images.txt`` (stamp, colour, depth), ``groundtruth.tum`` row by row, ``intrinsics.txt``."""
    root = Path(folder)
    rows = _table(root / "images.txt", 3)
    poses = [_pose(_numbers(row[1:8], root)) for row in _table(root / "groundtruth.tum", 8)]
    if len(rows) != len(poses):
        raise DataError(f"{root}: images.txt has {len(rows)} rows, groundtruth.tum {len(poses)}")
    numbers = _numbers(_table(root / "intrinsics.txt", 6)[0][:6], root)
    matrix = _intrinsics(*numbers[2:6])
    frames = [
        RgbdFrame(root / row[1], root / row[2], matrix, pose, depth_unit)
        for row, pose in zip(rows, poses, strict=True)
    ]
    return RgbdSequence(root.name, frames)


def read_tum(
    folder: str | Path,
    intrinsics: tuple[float, float, float, float] = (525.0, 525.0, 319.5, 239.5),
    depth_unit: float = 1 / 5000,
    tolerance_s: float = 0.02,
) -> RgbdSequence:
    """TUM RGB-D: ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt``, associated by time stamp."""
    root = Path(folder)
    colour = _stamped(root / "rgb.txt", 2)
    depth = _stamped(root / "depth.txt", 2)
    truth = _stamped(root / "groundtruth.txt", 8)
    depth_stamps = np.array([stamp for stamp, _ in depth])
    truth_stamps = np.array([stamp for stamp, _ in truth])
    matrix = _intrinsics(*intrinsics)
    frames = []
    for stamp, row in colour:
        i = int(np.abs(depth_stamps - stamp).argmin())
        j = int(np.abs(truth_stamps - stamp).argmin())
        if max(abs(depth_stamps[i] - stamp), abs(truth_stamps[j] - stamp)) <= tolerance_s:
            pose = _pose(_numbers(truth[j][1][1:8], root))
            frames.append(RgbdFrame(root / row[1], root / depth[i][1][1], matrix, pose, depth_unit))
    if not frames:
        raise DataError(f"{root}: no image has depth and a pose within {tolerance_s} s")
    return RgbdSequence(root.name, frames)


def read_scannet(folder: str | Path) -> RgbdSequence:
    """ScanNet as exported by its tools: ``color/``, ``depth/``, ``pose/``, ``intrinsic/``.

    Depth is in millimetres, registered to the colour image; frames without a valid pose (ScanNet
    writes infinities) are left out.
    """
    root = Path(folder)
    matrix = _matrix(root / "intrinsic" / "intrinsic_color.txt")[:3, :3]
    frames = []
    for image in sorted((root / "color").glob("*.jpg"), key=lambda path: int(path.stem)):
        pose = _matrix(root / "pose" / f"{image.stem}.txt")
        if np.isfinite(pose).all():
            depth = root / "depth" / f"{image.stem}.png"
            frames.append(RgbdFrame(image, depth, matrix, pose, 1e-3))
    if not frames:
        raise DataError(f"{root} has no frame with a pose in color/ and pose/")
    return RgbdSequence(root.name, frames)


def read_megadepth(scene_info: str | Path, root: str | Path) -> RgbdSequence:
    """MegaDepth by the scene files of D2-Net's preprocessing (``*.npz``), depth as ``*.h5``.

    ``root`` is the folder that the paths in the file start from.
    """
    try:
        # The files hold arrays of Python objects: paths, with None for missing images.
        info = np.load(scene_info, allow_pickle=True)
        columns = [info[k] for k in ("image_paths", "depth_paths", "intrinsics", "poses")]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{scene_info} is not a MegaDepth scene file: {error}") from error
    frames = []
    for image, depth, matrix, T_camera_world in zip(*columns, strict=True):
        if image is not None and depth is not None:
            pose = np.linalg.inv(np.asarray(T_camera_world, np.float64))
            frames.append(
                RgbdFrame(
                    Path(root) / str(image), Path(root) / str(depth), np.array(matrix), pose, 1
                )
            )
    if not frames:
        raise DataError(f"{scene_info} has no image with depth")
    return RgbdSequence(Path(scene_info).stem, frames, OUTDOOR)


READERS: dict[str, Callable[..., RgbdSequence]] = {
    "plain": read_plain,
    "tum": read_tum,
    "scannet": read_scannet,
    "megadepth": read_megadepth,
}


def _read_depth(path: Path, unit: float) -> NDArray[np.float32]:
    if path.suffix == ".h5":
        try:
            import h5py
        except ImportError as error:
            raise DataError(f"{path} needs h5py: pip install h5py") from error
        with h5py.File(path, "r") as file:
            return np.asarray(file["depth"], np.float32)
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2:
        raise DataError(f"{path} is not a depth image of one channel: check the data set")
    return np.asarray(depth, np.float32) * np.float32(unit)


def _table(path: Path, columns: int) -> list[list[str]]:
    """Rows of words; '#' begins a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    rows = [line.split("#")[0].split() for line in text.splitlines()]
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, 1):
        if len(row) < columns:
            raise DataError(f"{path}: entry {number} has {len(row)} columns, {columns} are needed")
    if not rows:
        raise DataError(f"{path} is empty")
    return rows


def _stamped(path: Path, columns: int) -> list[tuple[float, list[str]]]:
    return [(_numbers(row[:1], path)[0], row) for row in _table(path, columns)]


def _numbers(words: Sequence[str], path: Path) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _matrix(path: Path) -> Array:
    matrix = np.array([_numbers(row, path) for row in _table(path, 3)])
    if matrix.shape not in ((3, 3), (4, 4), (3, 4)):
        raise DataError(f"{path} holds a matrix of {matrix.shape}")
    return matrix


def _intrinsics(fx: float, fy: float, cx: float, cy: float) -> Array:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _pose(numbers: Sequence[float]) -> Array:
    """Tx ty tz qx qy qz qw to (4, 4)."""
    x, y, z, w = np.asarray(numbers[3:]) / np.linalg.norm(numbers[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = numbers[:3]
    return pose
