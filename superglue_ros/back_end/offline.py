"""The matcher and the back-end over recorded frames, without ROS."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
from superglue_ros.back_end.placement import USABLE
from superglue_ros.back_end.scene import Array, pose_of
from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import FolderSequence, ImageSequence
from superglue_ros.data.trajectories import write_placed
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.mapping.verification import FramePair
from superglue_ros.pipeline import Pipeline
from superglue_ros.types import Frame, FrameId, MatchKind, RightView


@dataclass(frozen=True, eq=False)
class Recording:
    """A frame and its true pose ``T_world_camera`` (4, 4), or None."""

    frame: Frame
    truth: Array | None


@dataclass(frozen=True)
class Closure:
    """A loop that was closed: numbers of the frames, and the inliers."""

    reference: int
    query: int
    inliers: int


@dataclass(frozen=True, eq=False)
class SlamRun:
    """Trajectories of one run, one entry per frame, None where there is no pose.

    ``chained`` concatenates relative poses (without back-end), ``optimised`` is from the back-end;
    all are ``T_world_camera``, each in its own world frame; that of ``optimised`` is upright, z up,
    where an IMU told gravity. Where scale is unknown, chained
    translations have their true length: an upper bound for relative poses alone.
    ``landmarks`` (M, 3) in the world of ``optimised``.
    """

    stamps_ns: Array
    truth: list[Array | None]
    chained: list[Array | None]
    optimised: list[Array | None]
    landmarks: Array
    closures: tuple[Closure, ...]
    lost: int
    metric: bool
    back_end_seconds: float
    keyframes: int = 0
    matcher_seconds: float = 0.0

    @property
    def trajectories(self) -> dict[str, list[Array | None]]:
        """Both trajectories by their names in tables."""
        return {"relative poses": self.chained, "back-end": self.optimised}

    def write(self, folder: Path, prefix: str = "") -> None:
        """Write ``relative_poses.tum`` and ``back_end.tum`` to ``folder``."""
        for name, poses in self.trajectories.items():
            stem = prefix + name.replace(" ", "_").replace("-", "_")
            write_placed(folder / f"{stem}.tum", self.stamps_ns, poses)


def recordings(
    sequence: ImageSequence, with_depth: bool, stereo: bool = False
) -> Iterator[Recording]:
    """Frames of a sequence, with ``stereo`` of a rectified one with their right images.

    Raises :class:`DataError` where there is no calibration, or no right image.
    """
    for number, item in enumerate(sequence):
        if item.camera is None:
            raise DataError(f"{sequence.name} has no calibration: a back-end cannot use it")
        depth = item.depth if with_depth else None
        frame_id = FrameId(id=number, stamp_ns=item.stamp_ns, frame_id="camera")
        right = None
        if stereo:
            if not isinstance(sequence, FolderSequence):
                raise DataError(f"{sequence.name} has no stereo pairs")
            image = to_grey(sequence.right_image(number))
            right_id = replace(frame_id, frame_id="right", camera_index=1)
            right = RightView(right_id, image, item.camera, sequence.baseline_m)
        frame = Frame(
            id=frame_id,
            image=to_grey(item.image),
            camera=item.camera,
            keypoints=None,
            depth=depth,
            rectified=stereo,
            right=right,
        )
        yield Recording(frame, item.T_world_camera)


def run(frames: Iterable[Recording], pipeline: Pipeline, back_end: BundleAdjuster) -> SlamRun:
    """Process the frames with matcher and back-end, in order, as the two nodes do."""
    session = Session(back_end)
    keyframes = 0
    seconds = 0.0
    for recording in frames:
        frame = recording.frame
        if frame.camera is None:
            raise DataError(f"frame {frame.id.id} has no calibration: a back-end cannot use it")
        result = pipeline.process(frame)
        seconds += result.seconds.total
        keyframes += result.is_keyframe
        session.add(frame.id, result.pairs, frame.camera, recording.truth)
    return replace(session.finish(), keyframes=keyframes, matcher_seconds=seconds)


class Session:
    """Builds trajectories, with and without the back-end, from the matcher's results."""

    def __init__(self, back_end: BundleAdjuster) -> None:
        self._back_end = back_end
        self._chain = _Chain()
        self._ids: list[FrameId] = []
        self._closures: list[Closure] = []
        self._lost = 0
        self._seconds = 0.0
        self._camera: Camera | None = None

    def add(
        self, frame: FrameId, pairs: Sequence[FramePair], camera: Camera, truth: Array | None
    ) -> None:
        """One frame; ``truth`` (4, 4) is ``T_world_camera``, or None."""
        self._camera = camera
        self._ids.append(frame)
        self._chain.add(frame, pairs, truth)
        self._lost += bool(pairs) and not any(pair.tracked for pair in pairs)
        started = time.perf_counter()
        for pair in pairs:
            closed_before = self._back_end.loops_closed
            self._back_end.add(pair.matches, pair.pose, camera)
            if self._back_end.loops_closed > closed_before:
                reference, inliers = pair.matches.reference.id, pair.pose.num_inliers
                self._closures.append(Closure(reference, frame.id, inliers))
        self._back_end.optimise(camera)
        self._seconds += time.perf_counter() - started

    def finish(self) -> SlamRun:
        """Adjust all frames once more, and return the trajectories."""
        if self._camera is not None:
            started = time.perf_counter()
            self._back_end.optimise_all(self._camera)
            self._seconds += time.perf_counter() - started
        scene = self._back_end.scene
        level = np.eye(4) if scene.gravity is None else scene.level
        trajectory = {frame: level @ pose for frame, pose in scene.trajectory.items()}
        return SlamRun(
            stamps_ns=np.array([one.stamp_ns for one in self._ids], np.int64),
            truth=[self._chain.truth[one] for one in self._ids],
            chained=[self._chain.poses.get(one) for one in self._ids],
            optimised=[trajectory.get(one) for one in self._ids],
            landmarks=scene.points(scene.landmarks) @ level[:3, :3].T,
            closures=tuple(self._closures),
            lost=self._lost,
            metric=scene.metric,
            back_end_seconds=self._seconds,
        )


class _Chain:
    """Poses by concatenating relative poses; over a gap the camera is assumed at rest."""

    def __init__(self) -> None:
        self.poses: dict[FrameId, Array] = {}
        self.truth: dict[FrameId, Array | None] = {}

    def add(self, frame: FrameId, pairs: Sequence[FramePair], truth: Array | None) -> None:
        self.truth[frame] = truth
        for pair in pairs:
            pose, reference = pair.pose, pair.matches.reference
            if pose.status not in USABLE or pair.matches.kind is MatchKind.LOOP:
                continue
            if reference not in self.poses:
                last = next(reversed(self.poses.values()), np.eye(4))
                self.poses[reference] = last.copy()
            length = 1.0 if pose.scale_known else self._true_length(reference, frame)
            step = pose_of(pose.rotation, length * pose.translation)
            self.poses[frame] = self.poses[reference] @ step
            return

    def _true_length(self, reference: FrameId, query: FrameId) -> float:
        before, after = self.truth.get(reference), self.truth.get(query)
        if before is None or after is None:
            return 1.0
        return float(np.linalg.norm(before[:3, 3] - after[:3, 3]))
