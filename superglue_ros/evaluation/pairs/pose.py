"""Relative pose estimation (sections 5.2 and 5.3, tables 2, 3 and 6)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.frame_depths import FrameDepths
from superglue_ros.evaluation.pairs.images import read_grey
from superglue_ros.evaluation.pairs.match_truth import (
    DepthTruth,
    EpipolarTruth,
    MatchTruth,
    UprightTruth,
    match_record,
    right_or_on_the_line,
)
from superglue_ros.evaluation.pairs.pairs_file import PosePair, upright_intrinsics, upright_pose
from superglue_ros.evaluation.pairs.predictions import Missing, Prediction, digest
from superglue_ros.evaluation.pairs.repeated_poses import (
    PoseEstimatorConfig,
    estimates_of,
    pose_summary,
    repeated_poses,
)
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.depth_overlap import check_depth
from superglue_ros.geometry.ground_truth import INDOOR

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PoseProtocol:
    """Evaluation protocol; the defaults are the paper's for indoor pairs.

    ``repeats`` of every estimator, see :func:`repeated_poses`. ``max_size`` is the image size that
    pixel thresholds refer to. ``epipolar`` is the squared symmetric epipolar distance under which a
    match is correct; where the cases have depth, ``reprojection_px`` decides instead.
    ``rotation_only`` ignores the translation, for sequences with hardly any.

    Raises :class:`ConfigError` without an estimator or a repeat.
    """

    estimators: tuple[PoseEstimatorConfig, ...] = (PoseEstimatorConfig(),)
    repeats: int = 1
    max_size: int = 640
    epipolar: float = 5e-4
    reprojection_px: float | None = None
    confidence_threshold: float = 0.0
    rotation_only: bool = False

    def __post_init__(self) -> None:
        names = [one.key for one in self.estimators]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"--estimator must name different estimators, not {names}")
        if self.repeats < 1:
            raise ConfigError(f"--repeats must be at least 1, not {self.repeats}")
        if self.reprojection_px is not None and self.reprojection_px <= 0:
            raise ConfigError(
                f"--reprojection-threshold must be positive, not {self.reprojection_px}"
            )

    def mapping(self) -> dict[str, Any]:
        """For result files."""
        return {**asdict(self), "estimators": [one.mapping() for one in self.estimators]}


@dataclass(frozen=True, eq=False)
class PoseCase:
    """One pair of a pairs file with the folder of its images, and depth where there is any."""

    pair: PosePair
    folder: Path
    depths: FrameDepths | None = None

    @property
    def keys(self) -> tuple[str, str]:
        """Image names, with the turns where there are any."""
        pair = self.pair
        return _key(pair.name0, pair.rot0), _key(pair.name1, pair.rot1)

    def image(self, which: int) -> NDArray[np.uint8]:
        """Image 0 or 1, turned upright."""
        name, turns = (
            (self.pair.name0, self.pair.rot0) if which == 0 else (self.pair.name1, self.pair.rot1)
        )
        return np.ascontiguousarray(np.rot90(read_grey(self.folder / name), turns))


def pose_cases(
    pairs: Sequence[PosePair], images: Path, depths: FrameDepths | None = None
) -> list[PoseCase]:
    """The pairs of a file with their images, and the depth of these."""
    return [PoseCase(pair, images, depths) for pair in pairs]


def data_fingerprint(cases: Sequence[PoseCase]) -> dict[str, Any]:
    """What determines the predictions: image names, turns and file sizes (not the poses)."""
    parts = []
    for case in cases:
        for key, name in zip(case.keys, (case.pair.name0, case.pair.name1), strict=True):
            file = case.folder / name
            parts.append(f"{key} {file.stat().st_size if os.path.isfile(file) else -1}")
    return {"pairs": len(cases), "digest": digest(parts)}


def upright_truth(case: PoseCase, prediction: Prediction) -> UprightTruth:
    """Ground truth in the pixels of the prediction."""
    pair = case.pair
    transform = upright_pose(pair.transform, pair.rot0, pair.rot1)
    return UprightTruth(
        upright_intrinsics(pair.intrinsics0, prediction.size0, pair.rot0),
        upright_intrinsics(pair.intrinsics1, prediction.size1, pair.rot1),
        transform[:3, :3],
        transform[:3, 3],
    )


def match_truth(
    case: PoseCase,
    prediction: Prediction,
    protocol: PoseProtocol,
    reprojection_px: float | None = None,
) -> MatchTruth:
    """What decides which matches of the pair are correct: depth where the case has it.

    ``reprojection_px`` replaces the protocol's.
    """
    truth = upright_truth(case, prediction)
    if case.depths is None:
        return EpipolarTruth(truth, protocol.epipolar)
    depths = []
    for name, turns, size in (
        (case.pair.name0, case.pair.rot0, prediction.size0),
        (case.pair.name1, case.pair.rot1, prediction.size1),
    ):
        depth = np.rot90(case.depths.of(case.folder / name), turns)
        check_depth(depth, *size, name)
        depths.append(depth)
    pixels = reprojection_px or protocol.reprojection_px or INDOOR.match
    limit = pixels / _scale(prediction.size1, protocol.max_size)
    return DepthTruth(truth=truth, depth0=depths[0], depth1=depths[1], limit=limit)


def judged_matches(
    case: PoseCase, prediction: Prediction, protocol: PoseProtocol
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Right matches (K,) and correspondences (L, 2) to find, as figure 9 judges them.

    With depth by reprojection under ``FIGURE_PX``, and where depth is unknown by the epipolar line;
    without depth as :func:`judge`.
    """
    truth = match_truth(case, prediction, protocol, FIGURE_PX)
    epipolar = EpipolarTruth(upright_truth(case, prediction), protocol.epipolar)
    possible = truth.possible(prediction)
    right = right_or_on_the_line(truth, prediction, epipolar)
    return right, np.zeros((0, 2), np.int64) if possible is None else possible


FIGURE_PX = 10.0
"""Reprojection error of a right match in figure 9 of the paper."""


def judge(case: PoseCase, prediction: Prediction, protocol: PoseProtocol) -> dict[str, Any]:
    """One record: match quality and pose errors of one pair.

    ``estimates`` holds the rows of :func:`repeated_poses`; the record itself the medians over the
    repeats of the first estimator.
    """
    truth = upright_truth(case, prediction)
    kept = prediction.above(protocol.confidence_threshold)
    points0, k0 = _at_size(kept.points0, truth.intrinsics0, kept.size0, protocol.max_size)
    points1, k1 = _at_size(kept.points1, truth.intrinsics1, kept.size1, protocol.max_size)
    estimates = repeated_poses(
        points0,
        points1,
        k0,
        k1,
        truth,
        protocol.estimators,
        protocol.repeats,
        protocol.rotation_only,
        kept.confidence,
    )
    epipolar = EpipolarTruth(truth, protocol.epipolar).errors(kept.points0, kept.points1)
    first = [row for row in estimates if row["estimator"] == protocol.estimators[0].key]
    return {
        "name0": case.keys[0],
        "name1": case.keys[1],
        "keypoints0": len(kept.keypoints0),
        "keypoints1": len(kept.keypoints1),
        **match_record(match_truth(case, prediction, protocol), kept),
        "median_epipolar": float(np.median(epipolar)) if len(epipolar) else float("nan"),
        **{name: _median([row[name] for row in first]) for name in _ESTIMATE_COLUMNS},
        "true_rotation_deg": angle_errors.rotation_error_deg(np.eye(3), truth.rotation),
        "true_translation": float(np.linalg.norm(truth.translation)),
        "estimates": estimates,
    }


_ESTIMATE_COLUMNS = (
    "inliers", "rotation_error_deg", "direction_error_deg", "pose_error_deg",
    "signed_pose_error_deg",
)  # fmt: skip


def summarise(
    records: Sequence[Mapping[str, Any]], missing: Iterable[Missing] = (), seed: int = 0
) -> dict[str, Any]:
    """Numbers of tables 2, 3 and 6 in percent, with 95% bootstrap intervals.

    ``estimators`` holds :func:`pose_summary` of each; that of the first stands at the top too.
    """

    def column(name: str) -> Floats:
        return np.array([float(r[name]) for r in records], np.float64)

    names = list(dict.fromkeys(str(row["estimator"]) for row in records[0]["estimates"]))
    estimators = {
        name: pose_summary(
            estimates_of(records, name, "pose_error_deg"),
            estimates_of(records, name, "signed_pose_error_deg"),
            seed,
        )
        for name in names
    }
    out: dict[str, Any] = {
        "pairs": len(records),
        "missing_pairs": len(list(missing)),
        **estimators[names[0]],
        "estimators": estimators,
    }
    for name in ("precision", "recall", "f1", "matching_score"):
        out[name] = 100 * metrics.mean_defined(column(name))
        low, high = interval(column(name), metrics.mean_defined, seed)
        out[f"{name}_interval"] = [100 * low, 100 * high]
    out["ratio_to_mutual"] = _ratio(column("right"), column("right_mutual"))
    for name in ("keypoints0", "matches", "correct", "inliers"):
        out[f"mean_{name}"] = metrics.mean_defined(column(name))
    for name in ("rotation_error_deg", "direction_error_deg", "pose_error_deg"):
        values = column(name)
        finite = values[~np.isnan(values)]
        out[f"median_{name}"] = float(np.median(finite)) if len(finite) else float("nan")
    return out


def _ratio(right: Floats, mutual: Floats) -> float:
    """Right matches of all pairs over mutual's, where both are known; NaN where mutual has none."""
    known = ~np.isnan(mutual)
    total = float(mutual[known].sum())
    return float(right[known].sum()) / total if total else float("nan")


def _median(values: Sequence[float]) -> float:
    """Median with infinities; NaN stays NaN."""
    ordered = np.sort(np.asarray(values, np.float64))
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    return float(middle[0] if middle[0] == middle[1] else middle.mean())


def _scale(size: tuple[int, int], max_size: int) -> float:
    """Factor of an image of this size shrunk to ``max_size``; 0 leaves it."""
    longest = max(size)
    return max_size / longest if max_size and longest > max_size else 1.0


def _at_size(
    points: NDArray, intrinsics: Floats, size: tuple[int, int], max_size: int
) -> tuple[Floats, Floats]:
    """Pixels and intrinsics of the image shrunk to ``max_size``; 0 leaves them."""
    scale = _scale(size, max_size)
    shift = (scale - 1) / 2
    resize = np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1.0]])
    return np.asarray(points, np.float64) * scale + shift, resize @ intrinsics


def _key(name: str, turns: int) -> str:
    return f"{name}@{turns}" if turns else name
