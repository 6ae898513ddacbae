"""Pairs files from image sequences with ground truth: a fixed gap, or a range of overlap."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences import FolderSequence, open_sequence
from superglue_ros.data.trajectories import format_stamp, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.pairs_file import PosePair
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.depth_overlap import overlap

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FrameRange:
    """Frames ``first`` to ``last`` (exclusive; 0 = all) of a sequence, every ``stride``-th."""

    first: int = 0
    last: int = 0
    stride: int = 1

    def indices(self, length: int) -> range:
        """The frames; a negative ``first`` counts from the end."""
        first = self.first if self.first >= 0 else max(0, length + self.first)
        last = min(self.last, length) if self.last > 0 else length
        return range(first, last, max(1, self.stride))


def pairs_by_gap(
    sequence: FolderSequence, gap: int, frames: FrameRange, images: Path
) -> list[PosePair]:
    """Frame i with frame i + ``gap``; names are relative to ``images``.

    Frames without ground truth are left out. Raises :class:`DataError` where nothing is left, or
    where the images are distorted (rectify them first).
    """
    camera = _undistorted_camera(sequence)
    chosen = set(frames.indices(len(sequence)))
    end = max(chosen, default=-1) + max(1, frames.stride)
    pairs = [
        _pair(sequence, i, i + gap, camera, images)
        for i in sorted(chosen)
        if i + gap < min(end, len(sequence)) and _poses(sequence, i, i + gap) is not None
    ]
    if not pairs:
        raise DataError(f"sequence {sequence.name} has no two frames {gap} apart with ground truth")
    return pairs


def pairs_by_overlap(
    sequence: FolderSequence,
    low: float,
    high: float,
    count: int,
    seed: int,
    frames: FrameRange,
    images: Path,
) -> list[PosePair]:
    """Up to ``count`` random pairs whose views share ``low`` to ``high`` of their pixels.

    The overlap score of appendix E: the mean share of pixels of either image seen in the other,
    after occlusion by depth. Raises :class:`DataError` without depth or ground truth.
    """
    camera = _undistorted_camera(sequence)
    indices = [i for i in frames.indices(len(sequence)) if _poses(sequence, i, i) is not None]
    candidates = [(i, j) for a, i in enumerate(indices) for j in indices[a + 1 :]]
    np.random.default_rng(seed).shuffle(candidates)
    depths: dict[int, NDArray[np.float32]] = {}
    pairs: list[PosePair] = []
    for i, j in track(candidates, len(candidates), "overlap"):
        for k in (i, j):
            if k not in depths:
                depth = sequence[k].depth
                if depth is None:
                    raise DataError(f"sequence {sequence.name} has no depth: use --gap instead")
                depths[k] = depth
        pair = _pair(sequence, i, j, camera, images)
        matrix = camera.matrix
        back: Floats = np.asarray(np.linalg.inv(pair.transform), np.float64)
        share = (
            overlap(depths[i], depths[j], matrix, matrix, pair.transform)
            + overlap(depths[j], depths[i], matrix, matrix, back)
        ) / 2
        if low <= share <= high:
            pairs.append(pair)
            if len(pairs) == count:
                break
    if not pairs:
        raise DataError(f"no two frames of {sequence.name} overlap by {low} to {high}")
    return sorted(pairs, key=lambda p: (p.name0, p.name1))


def rectify(sequence: FolderSequence, folder: Path, frames: FrameRange) -> FolderSequence:
    """Write a sequence without lens distortion, with the same intrinsics, to ``folder``."""
    camera = sequence.camera
    if camera is None:
        raise DataError(f"sequence {sequence.name} has no calibration")
    size = (camera.width, camera.height)
    ideal = camera.matrix
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).reshape(-1, 2)
    rays = (np.c_[grid, np.ones(len(grid))] @ np.linalg.inv(ideal).T)[:, :2]
    sources = camera.distort(rays).reshape(size[1], size[0], 2).astype(np.float32)
    map_x, map_y = sources[..., 0], sources[..., 1]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# timestamp[s] color depth\n"]
    indices = frames.indices(len(sequence))
    for i in track(indices, len(indices), "rectify"):
        item = sequence[i]
        names = [f"{sequence.image_paths[i].stem}.png"]
        image = cv2.remap(to_grey(item.image), map_x, map_y, cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / names[0]), image)
        if item.depth is not None:
            names.append(f"{sequence.image_paths[i].stem}.depth.png")
            depth = cv2.remap(item.depth, map_x, map_y, cv2.INTER_NEAREST)
            millimetres = np.rint(np.nan_to_num(depth) * 1000).clip(0, 65535).astype(np.uint16)
            cv2.imwrite(str(folder / names[1]), millimetres)
        lines.append(f"{format_stamp(item.stamp_ns)} {' '.join(names)}\n")
    (folder / "images.txt").write_text("".join(lines), encoding="utf-8")
    numbers = f"{ideal[0, 0]} {ideal[1, 1]} {ideal[0, 2]} {ideal[1, 2]}"
    (folder / "intrinsics.txt").write_text(f"{size[0]} {size[1]} {numbers}\n", encoding="utf-8")
    if sequence.trajectory is not None:
        write_trajectory(folder / "groundtruth.tum", sequence.trajectory)
    return open_sequence(folder)


def _undistorted_camera(sequence: FolderSequence) -> Camera:
    camera = sequence.camera
    if camera is None:
        raise DataError(f"sequence {sequence.name} has no calibration")
    if camera.distorted:
        raise DataError(
            f"the images of {sequence.name} are distorted, and the pairs format has no place for "
            f"that: give --rectified FOLDER to write rectified ones"
        )
    return camera


def _poses(sequence: FolderSequence, i: int, j: int) -> tuple[Floats, Floats] | None:
    trajectory = sequence.trajectory
    if trajectory is None:
        raise DataError(f"sequence {sequence.name} has no ground truth")
    stamps = sequence.stamps_ns
    pose_i, pose_j = trajectory.at(int(stamps[i])), trajectory.at(int(stamps[j]))
    return None if pose_i is None or pose_j is None else (pose_i, pose_j)


def _pair(sequence: FolderSequence, i: int, j: int, camera: Camera, images: Path) -> PosePair:
    poses = _poses(sequence, i, j)
    assert poses is not None
    T_world_0, T_world_1 = poses
    names = [Path(os.path.relpath(sequence.image_paths[k], images)).as_posix() for k in (i, j)]
    transform = np.linalg.inv(T_world_1) @ T_world_0
    return PosePair(names[0], names[1], 0, 0, camera.matrix, camera.matrix, transform)
