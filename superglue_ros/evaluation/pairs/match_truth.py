"""Which matches of a pair with known pose are right: by epipolar error, or by depth.

Depth gives both: right or wrong, and which correspondences there are to find. Without it a match
on the true epipolar line counts as right, and what there is to find is what mutual nearest
neighbours find on the same features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.pairs.predictions import Prediction
from superglue_ros.geometry.depth_overlap import project_depth
from superglue_ros.geometry.epipolar import normalise
from superglue_ros.geometry.ground_truth import LabelThresholds, label_matches

Floats = NDArray[np.float64]


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

    @property
    def transform(self) -> Floats:
        """``T_1_0`` (4, 4)."""
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = self.rotation, self.translation
        return out


class MatchTruth(Protocol):
    """Errors of matches in ``unit``: less than ``limit`` is right."""

    @property
    def limit(self) -> float:
        """Smallest error that is wrong."""
        ...

    @property
    def unit(self) -> str:
        """Of errors and limit."""
        ...

    def errors(self, points0: NDArray, points1: NDArray) -> Floats:
        """Error (K,) of matched pixels (K, 2) and (K, 2); infinite for points that are hidden.

        NaN where the ground truth does not know.
        """
        ...

    def possible(self, prediction: Prediction) -> NDArray[np.int64] | None:
        """Correspondences (L, 2) that there are to find, by keypoint; None where unknown."""
        ...


@dataclass(frozen=True, eq=False)
class EpipolarTruth:
    """By the squared symmetric epipolar distance in normalised coordinates, as the paper does."""

    truth: UprightTruth
    limit: float
    unit: str = "epipolar"

    def errors(self, points0: NDArray, points1: NDArray) -> Floats:
        """See :class:`MatchTruth`; all are known."""
        return metrics.squared_epipolar_distance(
            normalise(points0, self.truth.intrinsics0),
            normalise(points1, self.truth.intrinsics1),
            self.truth.essential,
        )

    def possible(self, prediction: Prediction) -> NDArray[np.int64] | None:
        """Right matches of mutual nearest neighbours."""
        if prediction.mutual is None:
            return None
        right = right_by_keypoints(self, prediction, prediction.mutual)
        return prediction.mutual[right].astype(np.int64)


@dataclass(frozen=True, eq=False)
class DepthTruth:
    """By the distance in image 1 from the point that depth and pose give, in pixels.

    ``depth0``, ``depth1`` (H, W) in the unit of the translation, upright as the images.
    """

    truth: UprightTruth
    depth0: NDArray[np.floating]
    depth1: NDArray[np.floating]
    limit: float
    unit: str = "px"

    def errors(self, points0: NDArray, points1: NDArray) -> Floats:
        """See :class:`MatchTruth`; unknown where either depth is missing."""
        t = self.truth
        seen = project_depth(
            points0, self.depth0, self.depth1, t.intrinsics0, t.intrinsics1, t.transform
        )
        off = np.linalg.norm(seen.points - points1, axis=1)
        return np.where(seen.unknown, np.nan, np.where(seen.hidden, np.inf, off))

    def possible(self, prediction: Prediction) -> NDArray[np.int64]:
        """Reprojections that are the minimum of their row and column (appendix E)."""
        t = self.truth
        there = project_depth(
            prediction.keypoints0,
            self.depth0,
            self.depth1,
            t.intrinsics0,
            t.intrinsics1,
            t.transform,
        )
        back = project_depth(
            prediction.keypoints1,
            self.depth1,
            self.depth0,
            t.intrinsics1,
            t.intrinsics0,
            np.asarray(np.linalg.inv(t.transform), np.float64),
        )
        labels = label_matches(
            prediction.keypoints0,
            prediction.keypoints1,
            there,
            back,
            LabelThresholds(self.limit),
        )
        index0 = np.flatnonzero(labels.matches0 >= 0)
        return np.stack([index0, labels.matches0[index0]], axis=1).astype(np.int64)


def right_by_keypoints(
    truth: MatchTruth, prediction: Prediction, matches: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Whether matches (K, 2) are right at their detected pixels, refined or not: (K,).

    So that matchers on the same features are compared by what they match alone.
    """
    points0 = prediction.keypoints0[matches[:, 0]]
    points1 = prediction.keypoints1[matches[:, 1]]
    return np.asarray(truth.errors(points0, points1) < truth.limit, bool)


def right_or_on_the_line(
    truth: MatchTruth, prediction: Prediction, epipolar: EpipolarTruth
) -> NDArray[np.bool_]:
    """Whether matches (K,) are right: by ``truth``, where that is unknown by the epipolar line.

    So does figure 9 of the paper, with depth.
    """
    points = prediction.points0, prediction.points1
    errors = truth.errors(*points)
    on_line = epipolar.errors(*points) < epipolar.limit
    return np.asarray(np.where(np.isnan(errors), on_line, errors < truth.limit), bool)


def match_record(truth: MatchTruth, prediction: Prediction) -> dict[str, float | int]:
    """Quality of one pair's matches, in shares; see :class:`metrics.MatchQuality`.

    Matches that the truth does not know do not enter precision. ``right`` and ``right_mutual``
    count right matches at detected pixels, of the method and of mutual nearest neighbours on the
    same features; NaN where these are not stored.
    """
    errors = truth.errors(prediction.points0, prediction.points1)
    known = errors[~np.isnan(errors)]
    possible = truth.possible(prediction)
    quality = metrics.match_quality(
        known < truth.limit,
        0 if possible is None else metrics.count_recovered(prediction.matches, possible),
        0 if possible is None else len(possible),
        len(prediction.keypoints0),
        known,
    )
    mutual = prediction.mutual
    return {
        "matches": len(prediction.matches),
        "judged": len(known),
        "correct": int((known < truth.limit).sum()),
        "possible": float("nan") if possible is None else len(possible),
        "precision": quality.precision,
        "recall": quality.recall,
        "f1": quality.f1,
        "matching_score": quality.matching_score,
        "right": int(right_by_keypoints(truth, prediction, prediction.matches).sum()),
        "right_mutual": float("nan")
        if mutual is None
        else int(right_by_keypoints(truth, prediction, mutual).sum()),
    }
