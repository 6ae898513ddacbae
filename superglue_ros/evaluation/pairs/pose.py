"""Relative pose estimation (sections 5.2 and 5.3, tables 2, 3 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.images import read_grey
from superglue_ros.evaluation.pairs.pairs_file import PosePair, upright_intrinsics, upright_pose
from superglue_ros.evaluation.pairs.predictions import Missing, Prediction, digest
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.epipolar import normalise
from superglue_ros.geometry.estimators import RansacOptions, make_estimator
from superglue_ros.registry import ESTIMATORS

Floats = NDArray[np.float64]

AUC_THRESHOLDS_DEG = (5.0, 10.0, 20.0)


@dataclass(frozen=True)
class PoseEstimatorConfig:
    """Estimator of the relative pose; ``threshold_px`` holds at the size of the protocol.

    ``opencv-ransac`` at 1 px is the paper's (appendix E). ``max_iterations`` 0 takes 1000 for it
    (OpenCV's default) and 10000 for the others. OpenCV's RANSAC starts from a fixed
    state and ignores ``seed``.
    """

    name: str = "opencv-ransac"
    threshold_px: float = 1.0
    confidence: float = 0.99999
    max_iterations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        ESTIMATORS.choose(self.name)

    @property
    def iterations(self) -> int:
        """Most iterations, with the estimator's default filled in."""
        return self.max_iterations or (1000 if self.name == "opencv-ransac" else 10000)

    @property
    def options(self) -> RansacOptions:
        """For the estimator."""
        return RansacOptions(
            threshold_px=self.threshold_px,
            confidence=self.confidence,
            max_iterations=self.iterations,
            seed=self.seed,
        )

    def mapping(self) -> dict[str, object]:
        """For result files."""
        return {**asdict(self), "max_iterations": self.iterations}


@dataclass(frozen=True)
class PoseProtocol:
    """Evaluation protocol; the defaults are the paper's for indoor pairs.

    ``max_size`` is the image size that the estimator's pixel threshold refers to. ``epipolar`` is
    the squared symmetric epipolar distance under which a match is correct. ``rotation_only``
    ignores the translation, for sequences with hardly any.
    """

    estimator: PoseEstimatorConfig = field(default_factory=PoseEstimatorConfig)
    max_size: int = 640
    epipolar: float = 5e-4
    confidence_threshold: float = 0.0
    rotation_only: bool = False

    def mapping(self) -> dict[str, Any]:
        """For result files."""
        return {**asdict(self), "estimator": self.estimator.mapping()}


@dataclass(frozen=True, eq=False)
class PoseCase:
    """One pair of a pairs file with the folder of its images."""

    pair: PosePair
    folder: Path

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


def pose_cases(pairs: Sequence[PosePair], images: Path) -> list[PoseCase]:
    """The pairs of a file with their images."""
    return [PoseCase(pair, images) for pair in pairs]


def data_fingerprint(cases: Sequence[PoseCase]) -> dict[str, Any]:
    """What determines the predictions: image names, turns and file sizes (not the poses)."""
    parts = []
    for case in cases:
        for key, name in zip(case.keys, (case.pair.name0, case.pair.name1), strict=True):
            file = case.folder / name
            parts.append(f"{key} {file.stat().st_size if file.is_file() else -1}")
    return {"pairs": len(cases), "digest": digest(parts)}


@dataclass(frozen=True, eq=False)
class UprightTruth:
    """Ground truth of a pair for upright images: intrinsics [px], rotation, translation T_1_0."""

    intrinsics0: Floats
    intrinsics1: Floats
    rotation: Floats
    translation: Floats

    @property
    def essential(self) -> Floats:
        """True essential matrix, unit translation."""
        return metrics.essential_matrix(self.rotation, self.translation)


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


def epipolar_errors(prediction: Prediction, truth: UprightTruth) -> Floats:
    """Squared symmetric epipolar distance (K,) of every match under the true pose."""
    return metrics.squared_epipolar_distance(
        normalise(prediction.points0, truth.intrinsics0),
        normalise(prediction.points1, truth.intrinsics1),
        truth.essential,
    )


def judge(case: PoseCase, prediction: Prediction, protocol: PoseProtocol) -> dict[str, Any]:
    """One record: match precision and pose errors of one pair."""
    truth = upright_truth(case, prediction)
    kept = prediction.above(protocol.confidence_threshold)
    errors = epipolar_errors(kept, truth)
    correct = errors < protocol.epipolar
    points0, k0 = _at_size(kept.points0, truth.intrinsics0, kept.size0, protocol.max_size)
    points1, k1 = _at_size(kept.points1, truth.intrinsics1, kept.size1, protocol.max_size)
    estimator = make_estimator(protocol.estimator.name)
    estimate = estimator.relative_pose(points0, points1, k0, k1, protocol.estimator.options)
    rotation_deg = direction_deg = signed_deg = float("inf")
    if estimate is not None:
        rotation_deg = angle_errors.rotation_error_deg(estimate.rotation, truth.rotation)
        direction_deg = angle_errors.direction_error_deg(estimate.translation, truth.translation)
        signed_deg = angle_errors.direction_error_deg(estimate.translation, truth.translation, True)
        if protocol.rotation_only:
            direction_deg = signed_deg = float("nan")
    return {
        "name0": case.keys[0],
        "name1": case.keys[1],
        "keypoints0": len(kept.keypoints0),
        "keypoints1": len(kept.keypoints1),
        "matches": len(kept.matches),
        "correct": int(correct.sum()),
        "precision": float(correct.mean()) if len(correct) else 0.0,
        "matching_score": correct.sum() / len(kept.keypoints0) if len(kept.keypoints0) else 0.0,
        "median_epipolar": float(np.median(errors)) if len(errors) else float("nan"),
        "inliers": 0 if estimate is None else int(estimate.inliers.sum()),
        "rotation_error_deg": rotation_deg,
        "direction_error_deg": direction_deg,
        "pose_error_deg": angle_errors.pose_error_deg(rotation_deg, direction_deg),
        "signed_pose_error_deg": angle_errors.pose_error_deg(rotation_deg, signed_deg),
        "true_rotation_deg": angle_errors.rotation_error_deg(np.eye(3), truth.rotation),
        "true_translation": float(np.linalg.norm(truth.translation)),
    }


def summarise(
    records: Sequence[Mapping[str, Any]], missing: Iterable[Missing] = (), seed: int = 0
) -> dict[str, Any]:
    """Numbers of tables 2, 3 and 6 in percent, with 95% bootstrap intervals."""

    def column(name: str) -> Floats:
        return np.array([float(r[name]) for r in records], np.float64)

    errors, signed = column("pose_error_deg"), column("signed_pose_error_deg")

    def auc_at(values: Floats, threshold: float) -> float:
        return 100 * metrics.auc(values, threshold)

    out: dict[str, Any] = {
        "pairs": len(records),
        "missing_pairs": len(list(missing)),
        "failures": int(np.isinf(errors).sum()),
        "auc": {f"{t:g}": auc_at(errors, t) for t in AUC_THRESHOLDS_DEG},
        "auc_interval": {
            f"{t:g}": list(interval(errors, lambda e, t=t: auc_at(e, t), seed))  # type: ignore[misc]
            for t in AUC_THRESHOLDS_DEG
        },
        "auc_approximate": {
            f"{t:g}": 100 * metrics.auc_approximate(errors, t) for t in AUC_THRESHOLDS_DEG
        },
        "auc_signed_direction": {f"{t:g}": auc_at(signed, t) for t in AUC_THRESHOLDS_DEG},
    }
    for name in ("precision", "matching_score"):
        out[name] = 100 * metrics.mean_defined(column(name))
        low, high = interval(column(name), metrics.mean_defined, seed)
        out[f"{name}_interval"] = [100 * low, 100 * high]
    for name in ("keypoints0", "matches", "correct", "inliers"):
        out[f"mean_{name}"] = metrics.mean_defined(column(name))
    for name in ("rotation_error_deg", "direction_error_deg", "pose_error_deg"):
        values = column(name)
        finite = values[~np.isnan(values)]
        out[f"median_{name}"] = float(np.median(finite)) if len(finite) else float("nan")
    return out


def _at_size(
    points: NDArray, intrinsics: Floats, size: tuple[int, int], max_size: int
) -> tuple[Floats, Floats]:
    """Pixels and intrinsics of the image shrunk to ``max_size``; 0 leaves them."""
    longest = max(size)
    scale = max_size / longest if max_size and longest > max_size else 1.0
    shift = (scale - 1) / 2
    resize = np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1.0]])
    return np.asarray(points, np.float64) * scale + shift, resize @ intrinsics


def _key(name: str, turns: int) -> str:
    return f"{name}@{turns}" if turns else name
