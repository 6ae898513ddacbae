"""Evaluation of the middle-end on a recording, frame by frame against ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bag.outcomes import FrameOutcome, PairOutcome, matches_digest
from superglue_ros.evaluation.bag.tracks import track_figures
from superglue_ros.evaluation.bag.trajectories import trajectory_errors
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.repeated_poses import AUC_THRESHOLDS_DEG
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.camera import Camera
from superglue_ros.types import PoseStatus

Floats = NDArray[np.float64]

_WITH_DIRECTION = (PoseStatus.VALID, PoseStatus.PLANAR)
_WITH_ROTATION = (*_WITH_DIRECTION, PoseStatus.ROTATION_ONLY)


@dataclass(frozen=True)
class BagProtocol:
    """Protocol of the evaluation of poses.

    Below a true baseline of ``min_baseline`` metres only the rotation of a pair is evaluated. Above
    it, a pose without a direction is a failure. ``max_gap_s``: ground truth is interpolated over
    gaps up to this long.
    """

    min_baseline: float = 0.05
    max_gap_s: float = 0.2

    def mapping(self) -> dict[str, Any]:
        """For result files."""
        return {"estimator": "the node's own two-view geometry", **asdict(self)}


def judge(
    outcomes: Sequence[FrameOutcome],
    truth: Trajectory | None,
    camera: Camera | None,
    protocol: BagProtocol,
) -> list[dict[str, Any]]:
    """One record per frame and reference; one for frames without a reference."""
    records = []
    for outcome in outcomes:
        for pair in outcome.pairs or (None,):
            records.append(_record(outcome, pair, truth, camera, protocol))
    return records


def summarise(
    outcomes: Sequence[FrameOutcome],
    records: Sequence[Mapping[str, Any]],
    truth: Trajectory | None,
    seed: int = 0,
) -> dict[str, Any]:
    """Summary of a recording. Independent of times: equal runs write equal bytes."""
    paired = [outcome for outcome in outcomes if outcome.pairs]
    valid = [o for o in paired if any(p.pose_status in _WITH_DIRECTION for p in o.pairs)]
    usable = [o for o in paired if any(p.pose_status in _WITH_ROTATION for p in o.pairs)]
    rows = [record for record in records if record["reference"] >= 0]

    def column(name: str) -> Floats:
        return np.array([float(row[name]) for row in rows], np.float64)

    errors = column("pose_error_deg")
    errors = errors[~np.isnan(errors)]
    out: dict[str, Any] = {
        "frames": len(outcomes),
        "refused_frames": sum(bool(outcome.refused) for outcome in outcomes),
        "pairs": len(rows),
        "matches_sha256": matches_digest(outcomes),
        "valid_share": 100 * len(valid) / max(len(paired), 1),
        "usable_share": 100 * len(usable) / max(len(paired), 1),
        "statuses": {
            status.name.lower(): sum(row["pose_status"] == status.name.lower() for row in rows)
            for status in PoseStatus
        },
        "judged_pairs": len(errors),
        "auc": {f"{t:g}": 100 * metrics.auc(errors, t) for t in AUC_THRESHOLDS_DEG},
        "auc_interval": {
            f"{t:g}": list(interval(errors, lambda e, t=t: 100 * metrics.auc(e, t), seed))  # type: ignore[misc]
            for t in AUC_THRESHOLDS_DEG
        },
    }
    for name in ("keypoints", "matches", "inliers"):
        out[f"mean_{name}"] = metrics.mean_defined(column(name))
    for name in ("epipolar_px", "rotation_error_deg", "direction_error_deg"):
        values = column(name)
        finite = values[np.isfinite(values)]
        out[f"median_{name}"] = float(np.median(finite)) if len(finite) else float("nan")
    out["tracks"] = track_figures(outcomes)
    if truth is not None:
        out["trajectory"] = _trajectory(outcomes, truth)
    return out


def chain(outcomes: Sequence[FrameOutcome], truth: Trajectory | None) -> tuple[Trajectory, bool]:
    """Camera poses from the relative poses, each frame from its first valid reference.

    The longest run of connected frames, in the frame of its first camera. A pose without
    scale takes the true length of its translation (0 without truth): the trajectory then shows only
    the drift in rotation and direction. The flag is True if all scales are the node's own.
    """
    parts: list[dict[int, tuple[int, Floats]]] = []
    home: dict[int, int] = {}
    metric = True
    for outcome in outcomes:
        placed = False
        for pair in outcome.pairs:
            if pair.pose_status not in _WITH_ROTATION or pair.reference_id not in home:
                continue
            part = home[pair.reference_id]
            length = 1.0
            if not pair.scale_known:
                metric = False
                true = _relative(truth, pair.reference_ns, outcome.stamp_ns, 1e9)
                length = 0.0 if true is None else float(np.linalg.norm(true[:3, 3]))
            pose = np.eye(4)
            pose[:3, :3] = pair.rotation
            pose[:3, 3] = pair.translation * length
            parts[part][outcome.id] = (
                outcome.stamp_ns,
                parts[part][pair.reference_id][1] @ pose,
            )
            home[outcome.id] = part
            placed = True
            break
        if not placed:
            parts.append({outcome.id: (outcome.stamp_ns, np.eye(4))})
            home[outcome.id] = len(parts) - 1
    longest = max(parts, key=len, default={})
    stamps = np.array([stamp for stamp, _ in longest.values()], np.int64)
    poses = np.array([pose for _, pose in longest.values()]).reshape(-1, 4, 4)
    return Trajectory(stamps, poses), metric


def timing(outcomes: Sequence[FrameOutcome]) -> dict[str, list[float]]:
    """Seconds per stage of every frame, and in total."""
    answered = [o.seconds for o in outcomes if not o.refused]
    stages = {name: [s[i] for s in answered] for i, name in enumerate(STAGES)}
    return {**stages, "total": [sum(s) for s in answered]}


STAGES = ("extract", "match", "geometry")


def _record(
    outcome: FrameOutcome,
    pair: PairOutcome | None,
    truth: Trajectory | None,
    camera: Camera | None,
    protocol: BagProtocol,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "frame": outcome.id,
        "stamp_ns": outcome.stamp_ns,
        "reference": -1 if pair is None else pair.reference_id,
        "kind": -1 if pair is None else pair.kind,
        "keypoints": outcome.keypoints,
        "matches": 0 if pair is None else len(pair.scores),
        "inliers": 0 if pair is None else int(pair.inlier.sum()),
        "pose_status": "" if pair is None else pair.pose_status.name.lower(),
        "scale_known": pair is not None and pair.scale_known,
        "epipolar_px": float("nan"),
        "rotation_error_deg": float("nan"),
        "direction_error_deg": float("nan"),
        "pose_error_deg": float("nan"),
        "true_rotation_deg": float("nan"),
        "true_baseline_m": float("nan"),
        "refused": outcome.refused,
    }
    true = None
    if pair is not None:
        true = _relative(truth, pair.reference_ns, outcome.stamp_ns, protocol.max_gap_s)
    if pair is None or true is None:
        return record
    baseline = float(np.linalg.norm(true[:3, 3]))
    record["true_baseline_m"] = baseline
    record["true_rotation_deg"] = angle_errors.rotation_error_deg(np.eye(3), true[:3, :3])
    has_rotation = pair.pose_status in _WITH_ROTATION
    has_direction = pair.pose_status in _WITH_DIRECTION
    rotation = direction = float("inf")
    if has_rotation:
        rotation = angle_errors.rotation_error_deg(pair.rotation, true[:3, :3])
    if has_direction:
        direction = angle_errors.direction_error_deg(pair.translation, true[:3, 3], signed=True)
    if baseline < protocol.min_baseline:
        direction = float("nan")
    record["rotation_error_deg"] = rotation
    record["direction_error_deg"] = direction
    record["pose_error_deg"] = angle_errors.pose_error_deg(rotation, direction)
    if camera is not None and len(pair.scores) and baseline > 1e-3:
        essential = metrics.essential_matrix(true[:3, :3], true[:3, 3])
        squared = metrics.squared_epipolar_distance(
            camera.rays(pair.points_query), camera.rays(pair.points_ref), essential
        )
        # Root mean square of the two distances, in pixels: the sum of squares has both.
        record["epipolar_px"] = float(camera.focal * np.sqrt(np.nanmedian(squared) / 2))
    return record


def _relative(
    truth: Trajectory | None, reference_ns: int, query_ns: int, max_gap_s: float
) -> Floats | None:
    """True ``T_ref_query``; None where a pose is unknown."""
    if truth is None:
        return None
    reference, query = truth.at(reference_ns, max_gap_s), truth.at(query_ns, max_gap_s)
    if reference is None or query is None:
        return None
    return np.asarray(np.linalg.inv(reference) @ query)


def _trajectory(outcomes: Sequence[FrameOutcome], truth: Trajectory) -> dict[str, Any]:
    chained, metric = chain(outcomes, truth)
    known = [truth.at(int(stamp)) for stamp in chained.stamps_ns]
    keep = [i for i, pose in enumerate(known) if pose is not None]
    scale = "the node's" if metric else "ground truth"
    if len(keep) < 3:
        return {"scale_from": scale, "poses": len(keep)}
    stamps = chained.stamps_ns[keep]
    reference = Trajectory(stamps, np.array([known[i] for i in keep]))
    try:
        errors = trajectory_errors(Trajectory(stamps, chained.poses[keep]), reference, False)
    except DataError:
        return {"scale_from": scale, "poses": len(keep)}
    errors.pop("scale")
    return {"scale_from": scale, **errors}
