"""Poses of one pair by several estimators, repeated with shuffled matches and other seeds.

Robust estimators draw samples: on 40 pairs one run moves the AUC at 5 degrees by points. Their mean
over some repeats ranks methods, and the standard deviation says by how much one run is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.match_truth import UprightTruth
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.estimators import EstimatedPose, RansacOptions, make_estimator
from superglue_ros.registry import ESTIMATORS

Floats = NDArray[np.float64]

AUC_THRESHOLDS_DEG = (5.0, 10.0, 20.0)


@dataclass(frozen=True)
class PoseEstimatorConfig:
    """Estimator of the relative pose; ``threshold_px`` holds at the size of the protocol.

    ``opencv-ransac`` at 1 px is the paper's (appendix E). ``max_iterations`` 0 takes 1000 for it
    (OpenCV's default) and 10000 for the others. OpenCV's RANSAC starts from a fixed
    state and ignores ``seed``. ``label``: its name in results, where one estimator stands there
    with several thresholds.
    """

    name: str = "opencv-ransac"
    threshold_px: float = 1.0
    confidence: float = 0.99999
    max_iterations: int = 0
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        ESTIMATORS.choose(self.name)

    @property
    def key(self) -> str:
        """The name in results."""
        return self.label or self.name

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
        values = {k: v for k, v in asdict(self).items() if k != "label"}
        return {**values, "name": self.key, "max_iterations": self.iterations}


def repeated_poses(
    points0: Floats,
    points1: Floats,
    intrinsics0: Floats,
    intrinsics1: Floats,
    truth: UprightTruth,
    estimators: Sequence[PoseEstimatorConfig],
    repeats: int,
    rotation_only: bool = False,
    weights: NDArray | None = None,
) -> list[dict[str, Any]]:
    """A row for every estimator and repeat: inliers, and errors in degrees, infinite for failures.

    One repeat takes the matches in their order. Several shuffle them, each repeat by its own seed,
    the same for all estimators, and add its number to the estimator's seed. ``weights`` (K,): the
    matches' confidences, for estimators that sample by them.
    """
    rows = []
    for config in estimators:
        estimator = make_estimator(config.name)
        for repeat in range(repeats):
            order = np.arange(len(points0))
            if repeats > 1:
                np.random.default_rng([config.seed, repeat]).shuffle(order)
            options = replace(config.options, seed=config.seed + repeat)
            estimate = estimator.relative_pose(
                points0[order],
                points1[order],
                intrinsics0,
                intrinsics1,
                options,
                None if weights is None else weights[order],
            )
            errors = _errors(estimate, truth, rotation_only)
            rows.append({"estimator": config.key, "repeat": repeat, **errors})
    return rows


def estimates_of(
    records: Sequence[dict[str, Any]] | Sequence[Any], estimator: str, column: str
) -> Floats:
    """A column of the ``estimates`` of pairs: (pairs, repeats)."""
    return np.array(
        [[float(row[column]) for row in r["estimates"] if row["estimator"] == estimator]
         for r in records],
        np.float64,
    )  # fmt: skip


def mean_auc(errors: Floats, threshold: float) -> float:
    """AUC in percent of errors (pairs, repeats) [deg]: the mean over the repeats."""
    return float(np.mean(_aucs(errors, threshold)))


def pose_summary(errors: Floats, signed: Floats, seed: int) -> dict[str, Any]:
    """AUC of errors (pairs, repeats) in percent: mean over the repeats, deviation, interval.

    ``auc_deviation``: standard deviation of one repeat (n - 1), NaN for a single one.
    ``auc_interval``: over pairs. ``failures``: pairs without a pose, mean over the repeats.
    """
    repeats = errors.shape[1]
    out: dict[str, Any] = {"failures": float(np.isinf(errors).sum() / repeats)}
    for name in ("auc", "auc_deviation", "auc_interval", "auc_approximate", "auc_signed_direction"):
        out[name] = {}
    for t in AUC_THRESHOLDS_DEG:
        key = f"{t:g}"
        each = _aucs(errors, t)
        out["auc"][key] = float(np.mean(each))
        out["auc_deviation"][key] = float(np.std(each, ddof=1)) if repeats > 1 else float("nan")
        out["auc_interval"][key] = list(
            interval(errors, lambda e, t=t: mean_auc(e, t), seed)  # type: ignore[misc]
        )
        out["auc_approximate"][key] = float(
            np.mean([100 * metrics.auc_approximate(one, t) for one in errors.T])
        )
        out["auc_signed_direction"][key] = mean_auc(signed, t)
    return out


def _aucs(errors: Floats, threshold: float) -> list[float]:
    return [100 * metrics.auc(one, threshold) for one in errors.T]


def _errors(
    estimate: EstimatedPose | None, truth: UprightTruth, rotation_only: bool
) -> dict[str, float | int]:
    rotation_deg = direction_deg = signed_deg = float("inf")
    if estimate is not None:
        rotation_deg = angle_errors.rotation_error_deg(estimate.rotation, truth.rotation)
        direction_deg = angle_errors.direction_error_deg(estimate.translation, truth.translation)
        signed_deg = angle_errors.direction_error_deg(estimate.translation, truth.translation, True)
        if rotation_only:
            direction_deg = signed_deg = float("nan")
    return {
        "inliers": 0 if estimate is None else int(estimate.inliers.sum()),
        "rotation_error_deg": rotation_deg,
        "direction_error_deg": direction_deg,
        "pose_error_deg": angle_errors.pose_error_deg(rotation_deg, direction_deg),
        "signed_pose_error_deg": angle_errors.pose_error_deg(rotation_deg, signed_deg),
    }
