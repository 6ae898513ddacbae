"""The output of the node, from the recorded bag, or of the pipeline, compared with the truth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.data.bags import BagReader
from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bag.outcomes import offline
from superglue_ros.geometry.angle_errors import direction_error_deg, rotation_error_deg
from superglue_ros.geometry.camera import Camera
from superglue_ros.pipeline import Pipeline
from superglue_ros.types import Matches, MatchStatus, PoseStatus, RelativePose

MATCHES, POSE, STATUS = "/matches", "/relative_pose", "/matcher/status"
TOPICS = (MATCHES, POSE, STATUS)

_WITH_ROTATION = (PoseStatus.VALID, PoseStatus.PLANAR, PoseStatus.ROTATION_ONLY)
_WITH_DIRECTION = (PoseStatus.VALID, PoseStatus.PLANAR)


@dataclass(frozen=True, eq=False)
class PairResult:
    """One query frame against one reference. Errors in degrees; NaN = nothing to compare.

    ``epipolar_px`` (K,): distance of each match from the true epipolar line [px]; None without
    truth.
    """

    matches: Matches
    status: PoseStatus
    rotation_error_deg: float
    direction_error_deg: float
    parallax_deg: float
    epipolar_px: NDArray[np.float64] | None


@dataclass(frozen=True)
class FrameTimes:
    """Wall time of one frame in milliseconds."""

    extract: float
    match: float
    geometry: float


@dataclass(frozen=True)
class RunState:
    """Counts at the end of a run, as in ``MatcherStatus.msg``, and what computed it."""

    matched: int
    dropped: int
    refused: int
    keyframes: int
    device: str
    precision: str
    weights: str


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a run."""

    pairs: tuple[PairResult, ...]
    times: tuple[FrameTimes, ...]
    state: RunState


def read_results(path: Path, trajectory: Trajectory | None, camera: Camera | None) -> Results:
    """Read a recorded bag; raises :class:`DataError` where the node published nothing."""
    matches: dict[tuple[int, int], Matches] = {}
    poses: dict[tuple[int, int], Any] = {}
    times: list[FrameTimes] = []
    last_status = None
    with BagReader(path) as bag:
        for name, _, message in bag.messages(TOPICS):
            if name == STATUS:
                last_status = message
                times.append(
                    FrameTimes(
                        1e3 * message.extract_seconds,
                        1e3 * message.match_seconds,
                        1e3 * message.geometry_seconds,
                    )
                )
                continue
            key = (int(message.reference.id), int(message.query.id))
            if name == POSE:
                poses[key] = pose_from_message(message)
            elif message.status != MatchStatus.ERROR:
                matches[key] = matches_from_message(message)
    if last_status is None:
        raise DataError(f"bag {path} holds no {STATUS}: the node matched no frame")
    pairs = [
        _compare(matches[key], poses[key], trajectory, camera)
        for key in sorted(matches, key=lambda pair: (pair[1], pair[0]))
        if key in poses
    ]
    state = RunState(**{one.name: getattr(last_status, one.name) for one in fields(RunState)})
    return Results(tuple(pairs), tuple(times), state)


def pipeline_results(
    sequence: BagSequence,
    config: Config,
    use_depth: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> Results:
    """Run the pipeline over a sequence without ROS: the results that the node would give.

    ``sequence`` must give grey images. ``progress`` is called with the number of frames done.
    Raises :class:`DataError` where every frame is refused.
    """
    pipeline = Pipeline(config)
    outcomes = []
    for outcome in offline(sequence, pipeline, use_depth):
        outcomes.append(outcome)
        progress(len(outcomes))
    good = [outcome for outcome in outcomes if not outcome.refused]
    if not good:
        reason = outcomes[0].refused if outcomes else "it holds no images"
        raise DataError(f"no frame of {sequence.path} could be matched: {reason}")
    said = (pair.said for outcome in good for pair in outcome.pairs)
    pairs = (
        _compare(pair.matches, pair.pose, sequence.trajectory, sequence.camera)
        for pair in said
        if pair is not None
    )
    state = RunState(
        matched=len(good),
        dropped=0,
        refused=len(outcomes) - len(good),
        keyframes=len(pipeline.keyframes),
        device=pipeline.rig.device,
        precision=pipeline.rig.precision,
        weights=pipeline.rig.networks,
    )
    times = (FrameTimes(*(1e3 * seconds for seconds in outcome.seconds)) for outcome in good)
    return Results(tuple(pairs), tuple(times), state)


def summarise(results: Results) -> dict[str, Any]:
    """The summary's figures: medians over pairs and frames; None if there is no data."""
    pairs, times, status = results.pairs, results.times, results.state
    epipolar = [p.epipolar_px for p in pairs if p.epipolar_px is not None]
    counts = Counter(pair.status.name.lower() for pair in pairs)
    return {
        "frames": int(status.matched),
        "dropped": int(status.dropped),
        "refused": int(status.refused),
        "keyframes": int(status.keyframes),
        "pairs": len(pairs),
        "matches_median": _median([len(p.matches) for p in pairs]),
        "inliers_median": _median([int(p.matches.inlier.sum()) for p in pairs]),
        "rotation_error_deg_median": _median([p.rotation_error_deg for p in pairs]),
        "direction_error_deg_median": _median([p.direction_error_deg for p in pairs]),
        "parallax_deg_median": _median([p.parallax_deg for p in pairs]),
        "true_epipolar_error_px_median": _median(np.concatenate(epipolar)) if epipolar else None,
        "poses": {name.name.lower(): counts.get(name.name.lower(), 0) for name in PoseStatus},
        "milliseconds_per_stage": {
            stage: _median([getattr(frame, stage) for frame in times])
            for stage in ("extract", "match", "geometry")
        },
        "device": status.device,
        "precision": status.precision,
        "networks": status.weights,
    }


def _compare(
    matches: Matches, pose: RelativePose, trajectory: Trajectory | None, camera: Camera | None
) -> PairResult:
    rotation_error = direction_error = math.nan
    epipolar = None
    truth = None
    if trajectory is not None:
        truth = _relative(trajectory, matches.reference.stamp_ns, matches.query.stamp_ns)
    if truth is not None:
        if pose.status in _WITH_ROTATION:
            rotation_error = rotation_error_deg(pose.rotation, truth[:3, :3])
        if pose.status in _WITH_DIRECTION:
            direction_error = direction_error_deg(pose.translation, truth[:3, 3], signed=True)
        if camera is not None:
            epipolar = true_epipolar_error(matches, camera, truth)
    parallax = math.degrees(pose.median_parallax_rad)
    return PairResult(
        matches=matches,
        status=pose.status,
        rotation_error_deg=rotation_error,
        direction_error_deg=direction_error,
        parallax_deg=parallax,
        epipolar_px=epipolar,
    )


def true_epipolar_error(
    matches: Matches, camera: Camera, T_ref_query: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance (K,) of the matches from the true epipolar lines, mean over both images [px].

    All NaN if the true baseline is shorter than a millimetre: the lines are then undefined.
    """
    t = T_ref_query[:3, 3]
    if np.linalg.norm(t) < 1e-3:
        return np.full(len(matches), np.nan)
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ T_ref_query[:3, :3]  # x_ref' E x_query = 0
    ref = np.column_stack([camera.rays(matches.points_ref), np.ones(len(matches))])
    query = np.column_stack([camera.rays(matches.points_query), np.ones(len(matches))])
    lines_ref, lines_query = query @ essential.T, ref @ essential
    residual = np.abs(np.sum(ref * lines_ref, axis=1))
    inverse = 1 / np.hypot(*lines_ref.T[:2]) + 1 / np.hypot(*lines_query.T[:2])
    return np.asarray(camera.focal * residual * inverse / 2)


def _relative(trajectory: Trajectory, ref_ns: int, query_ns: int) -> NDArray[np.float64] | None:
    """The true ``T_ref_query`` (4, 4), None where one pose is unknown."""
    ref, query = trajectory.at(ref_ns), trajectory.at(query_ns)
    if ref is None or query is None:
        return None
    return np.asarray(np.linalg.inv(ref) @ query)


def _median(values: Any) -> float | None:
    """Median of the finite values, None without any."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    return round(float(np.median(finite)), 4) if len(finite) else None
