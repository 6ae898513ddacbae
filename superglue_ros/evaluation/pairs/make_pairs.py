"""Pairs files from image sequences with ground truth: a fixed gap, or a range of overlap."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.image import to_grey
from superglue_ros.data.rectify import Rectification
from superglue_ros.data.sequences.base import FolderSequence, open_sequence, write_intrinsics
from superglue_ros.data.trajectories import format_stamp, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.pairs_file import PosePair
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.depth_overlap import mutual_overlap

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
    _require_undistorted(sequence)
    chosen = set(frames.indices(len(sequence)))
    end = max(chosen, default=-1) + max(1, frames.stride)
    pairs = [
        _pair(sequence, i, i + gap, images)
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
    _require_undistorted(sequence)
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
        pair = _pair(sequence, i, j, images)
        share = mutual_overlap(
            depths[i], depths[j], pair.intrinsics0, pair.intrinsics1, pair.transform
        )
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
        raise DataError(f"sequence {sequence.name} has no calibration that all its images share")
    rectification = Rectification.of(camera)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# timestamp[s] color depth\n"]
    indices = frames.indices(len(sequence))
    for i in track(indices, len(indices), "rectify"):
        item = sequence[i]
        names = [f"{sequence.image_paths[i].stem}.png"]
        cv2.imwrite(str(folder / names[0]), rectification.image(to_grey(item.image)))
        if item.depth is not None:
            names.append(f"{sequence.image_paths[i].stem}.depth.png")
            depth = rectification.depth(item.depth)
            millimetres = np.rint(np.nan_to_num(depth) * 1000).clip(0, 65535).astype(np.uint16)
            cv2.imwrite(str(folder / names[1]), millimetres)
        lines.append(f"{format_stamp(item.stamp_ns)} {' '.join(names)}\n")
    (folder / "images.txt").write_text("".join(lines), encoding="utf-8")
    write_intrinsics(folder / "intrinsics.txt", rectification.camera)
    if sequence.trajectory is not None:
        write_trajectory(folder / "groundtruth.tum", sequence.trajectory)
    return open_sequence(folder)


def _require_undistorted(sequence: FolderSequence) -> None:
    if sequence.distorted:
        raise DataError(
            f"the images of {sequence.name} are distorted, and the pairs format has no place for "
            f"that: give --rectified FOLDER to write rectified ones"
        )


def _poses(sequence: FolderSequence, i: int, j: int) -> tuple[Floats, Floats] | None:
    if sequence.trajectory is None:
        raise DataError(f"sequence {sequence.name} has no ground truth")
    pose_i, pose_j = sequence.pose(i), sequence.pose(j)
    return None if pose_i is None or pose_j is None else (pose_i, pose_j)


def _pair(sequence: FolderSequence, i: int, j: int, images: Path) -> PosePair:
    poses = _poses(sequence, i, j)
    assert poses is not None
    T_world_0, T_world_1 = poses
    names = [Path(os.path.relpath(sequence.image_paths[k], images)).as_posix() for k in (i, j)]
    return PosePair(
        name0=names[0],
        name1=names[1],
        rot0=0,
        rot1=0,
        intrinsics0=sequence.intrinsics(i),
        intrinsics1=sequence.intrinsics(j),
        transform=np.linalg.inv(T_world_1) @ T_world_0,
    )
