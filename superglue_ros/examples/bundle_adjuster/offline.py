"""The matcher and the back-end over recorded frames, without ROS."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from superglue_ros.errors import DataError
from superglue_ros.examples.bundle_adjuster.back_end import BundleAdjuster
from superglue_ros.examples.bundle_adjuster.placement import USABLE
from superglue_ros.examples.bundle_adjuster.scene import Array, pose_of
from superglue_ros.image import to_grey
from superglue_ros.pipeline import FramePair, Pipeline
from superglue_ros.sequences import ImageSequence
from superglue_ros.types import Frame, FrameId, MatchKind


@dataclass(frozen=True, eq=False)
class Recording:
    """A frame and where the camera truly was: ``T_world_camera`` (4, 4), or None."""

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

    ``chained`` strings relative poses together (without back-end), ``optimised`` is what the
    back-end made of them; all are ``T_world_camera`` with a world of their own. Where scale is
    unknown, every chained translation is given its true length: it is an upper bound of what
    relative poses alone can do. ``landmarks`` (M, 3) in the world of ``optimised``.
    """

    stamps_ns: Array
    truth: list[Array | None]
    chained: list[Array | None]
    optimised: list[Array | None]
    landmarks: Array
    closures: tuple[Closure, ...]
    keyframes: int
    lost: int
    metric: bool
    matcher_seconds: float
    back_end_seconds: float


def recordings(sequence: ImageSequence, with_depth: bool) -> Iterator[Recording]:
    """Frames of a sequence. Raises :class:`DataError` where there is no calibration."""
    for number, item in enumerate(sequence):
        if item.camera is None:
            raise DataError(f"{sequence.name} has no calibration: a back-end cannot use it")
        depth = item.depth if with_depth else None
        frame_id = FrameId(number, item.stamp_ns, "camera")
        frame = Frame(frame_id, to_grey(item.image), item.camera, None, depth)
        yield Recording(frame, item.T_world_camera)


def run(frames: Iterable[Recording], pipeline: Pipeline, back_end: BundleAdjuster) -> SlamRun:
    """Feed the frames through both, in order, as the two nodes would."""
    chain = _Chain()
    ids: list[FrameId] = []
    closures = []
    keyframes = lost = 0
    matcher_seconds = back_end_seconds = 0.0
    camera = None
    for recording in frames:
        frame = recording.frame
        camera = frame.camera
        if camera is None:
            raise DataError(f"frame {frame.id.id} has no calibration: a back-end cannot use it")
        result = pipeline.process(frame)
        matcher_seconds += result.seconds.total
        ids.append(frame.id)
        chain.add(frame.id, result.pairs, recording.truth)
        started = time.perf_counter()
        closed_before = back_end.loops_closed
        for pair in result.pairs:
            back_end.add(pair.matches, pair.pose, camera)
            if back_end.loops_closed > closed_before and pair.matches.kind is MatchKind.LOOP:
                reference, inliers = pair.matches.reference.id, pair.pose.num_inliers
                closures.append(Closure(reference, frame.id.id, inliers))
                closed_before = back_end.loops_closed
        back_end.optimise(camera)
        back_end_seconds += time.perf_counter() - started
        keyframes += result.is_keyframe
        lost += bool(result.pairs) and not any(pair.tracked for pair in result.pairs)
    if camera is not None:
        started = time.perf_counter()
        back_end.optimise_all(camera)
        back_end_seconds += time.perf_counter() - started
    scene = back_end.scene
    return SlamRun(
        np.array([one.stamp_ns for one in ids], np.int64),
        [chain.truth[one] for one in ids],
        [chain.poses.get(one) for one in ids],
        [scene.poses.get(one) for one in ids],
        scene.points(scene.landmarks),
        tuple(closures),
        keyframes,
        lost,
        scene.metric,
        matcher_seconds,
        back_end_seconds,
    )


class _Chain:
    """Poses by stringing relative poses together; a gap is bridged by standing still."""

    def __init__(self) -> None:
        self.poses: dict[FrameId, Array] = {}
        self.truth: dict[FrameId, Array | None] = {}

    def add(self, frame: FrameId, pairs: tuple[FramePair, ...], truth: Array | None) -> None:
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
