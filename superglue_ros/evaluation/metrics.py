"""The paper's metrics (section 5 and appendix E) as pure functions of arrays.

Everything is a share in [0, 1], pixels or degrees; a failed estimate has infinite error. Points are
(N, 2) pixels (x, y), (0, 0) the centre of the top-left pixel. A match list is (K, 2) integers:
index in image 0, index in image 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.geometry.ground_truth import LabelThresholds, Projection, label_matches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


# --- Cumulative error curves -------------------------------------------------------------------


def auc(errors: ArrayLike, threshold: float, interpolate: bool = True) -> float:
    """Area under the cumulative error curve up to ``threshold``, divided by it: exact integration.

    The curve joins (0, 0) and the points (e_i, i / n) of the sorted errors by straight lines and is
    flat from the last error below the threshold on, which is how published tables integrate it.
    ``interpolate=False`` integrates the step function instead, which equals the mean of
    max(0, 1 - e / threshold). Infinite and NaN errors are failures: they count in n only.
    """
    sorted_errors = np.sort(_failures_infinite(errors))
    n = len(sorted_errors)
    if n == 0:
        return float("nan")
    if not interpolate:
        return float(np.mean(np.clip(1.0 - sorted_errors / threshold, 0.0, None)))
    inside = sorted_errors[sorted_errors < threshold]
    recall = np.arange(len(inside) + 1) / n
    x = np.concatenate([[0.0], inside, [threshold]])
    y = np.concatenate([recall, recall[-1:]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / threshold)


def mean_auc(errors: ArrayLike, threshold: float) -> float:
    """The mean :func:`auc` of repeats: ``errors`` (N, R), or (N,) of one."""
    repeats = np.asarray(errors, np.float64)
    return float(np.mean([auc(one, threshold) for one in repeats.reshape(len(repeats), -1).T]))


def auc_approximate(errors: ArrayLike, threshold: float, bin_width: float = 5.0) -> float:
    """The coarse area of earlier work (table 6): mean recall at the multiples of ``bin_width``.

    ``threshold`` must be a multiple of ``bin_width``; raises ValueError otherwise.
    """
    bins = round(threshold / bin_width)
    if bins < 1 or abs(bins * bin_width - threshold) > 1e-9:
        raise ValueError(f"threshold {threshold} is not a multiple of the bin width {bin_width}")
    values = _failures_infinite(errors)
    if len(values) == 0:
        return float("nan")
    return float(np.mean([np.mean(values < bin_width * (k + 1)) for k in range(bins)]))


def cumulative_curve(errors: ArrayLike) -> tuple[Floats, Floats]:
    """Points (error, share of cases with at most this error) of the finite errors, from (0, 0)."""
    values = np.sort(_failures_infinite(errors))
    finite = values[np.isfinite(values)]
    share = np.arange(1, len(finite) + 1) / max(len(values), 1)
    return np.concatenate([[0.0], finite]), np.concatenate([[0.0], share])


# --- Matches against known correspondences -----------------------------------------------------


def ground_truth_matches(
    points0: NDArray, points1: NDArray, homography: NDArray, threshold_px: float = 3.0
) -> Ints:
    """Correspondences of two keypoint sets under a homography: (K, 2).

    Entries of the reprojection matrix (image 0 into image 1) that are the minimum of their row and
    column and below the threshold (appendix E).
    """
    visible = project(homography, points0)
    nowhere = np.asarray(np.isnan(visible).any(axis=1))
    there = Projection(visible, nowhere, np.zeros(len(visible), bool))
    none = np.zeros(len(points1), bool)
    back = Projection(np.full((len(points1), 2), np.nan), none, ~none)  # not used by the paper
    labels = label_matches(points0, points1, there, back, LabelThresholds(threshold_px))
    index0 = np.flatnonzero(labels.matches0 >= 0)
    return np.stack([index0, labels.matches0[index0]], axis=1).astype(np.int64)


@dataclass(frozen=True)
class MatchQuality:
    """Precision, recall, F1, matching score and outlier ratio as shares, mean distance in pixels.

    Without matches, precision, F1 and matching score are 0, as in published evaluations, and the
    distance is NaN; without possible correspondences recall and F1 are NaN. NaN entries do not
    enter the mean over pairs.
    """

    precision: float
    recall: float
    f1: float
    matching_score: float
    mean_distance_px: float
    outlier_ratio: float


def match_quality(
    correct: NDArray,
    recovered: int,
    possible: int,
    detected: int,
    distances_px: NDArray,
) -> MatchQuality:
    """Quality of one pair's matches.

    ``correct`` (K,) bool per match; ``recovered`` of ``possible`` ground-truth correspondences are
    among the matches; ``detected`` keypoints in image 0; ``distances_px`` (K,) error of each match.
    """
    matches = len(correct)
    hits = int(np.count_nonzero(correct))
    precision = hits / matches if matches else 0.0
    recall = recovered / possible if possible else float("nan")
    return MatchQuality(
        precision=precision,
        recall=recall,
        f1=f1(precision, recall),
        matching_score=hits / detected if detected else 0.0,
        mean_distance_px=float(np.mean(distances_px)) if matches else float("nan"),
        outlier_ratio=1.0 - precision,
    )


def f1(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 where both are 0, NaN where one is unknown."""
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def count_recovered(matches: NDArray, truth: NDArray) -> int:
    """How many ground-truth correspondences (K, 2) are among the matches (L, 2)."""
    return len({tuple(row) for row in np.asarray(truth).tolist()} & set(_rows(matches)))


def mean_defined(values: ArrayLike) -> float:
    """Mean without the NaN entries; NaN where nothing is left."""
    array = np.asarray(values, np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if len(defined) else float("nan")


# --- Homographies ------------------------------------------------------------------------------


def project(homography: NDArray, points: NDArray) -> Floats:
    """Apply a 3x3 homography to points (N, 2); points at or behind infinity become NaN.

    For homographies that keep the orientation, as views of a plane from one side do.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    homogeneous = points @ homography[:, :2].T + homography[:, 2]
    # The Jacobian's determinant is det(H) / w^3: positive in front, whatever the sign of H.
    depth = homogeneous[:, 2:] * np.sign(np.linalg.det(homography))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 1e-12, homogeneous[:, :2] / homogeneous[:, 2:], np.nan)


def corner_error(estimate: NDArray | None, truth: NDArray, width: int, height: int) -> float:
    """Mean distance [px] of the image's four corners under two homographies; inf for a failure."""
    if estimate is None or not np.isfinite(estimate).all():
        return float("inf")
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        homogeneous = np.c_[corners, np.ones(4)] @ np.asarray(estimate, np.float64).T
        mapped = homogeneous[:, :2] / homogeneous[:, 2:]
        error = float(np.linalg.norm(mapped - project(truth, corners), axis=1).mean())
    return error if np.isfinite(error) else float("inf")


# --- Relative poses ----------------------------------------------------------------------------


def essential_matrix(rotation: NDArray, translation: NDArray) -> Floats:
    """E = [t]x R of ``x_1 = R x_0 + t``, so that x1ᵀ E x0 = 0; t is scaled to unit length."""
    x, y, z = np.asarray(translation, np.float64) / max(float(np.linalg.norm(translation)), 1e-300)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ np.asarray(rotation, np.float64)


def squared_epipolar_distance(rays0: NDArray, rays1: NDArray, essential: NDArray) -> Floats:
    """Sum of the squared distances to both epipolar lines, normalised image coordinates: (N,).

    ``rays0``, ``rays1`` (N, 2) are pixels through the inverse intrinsics. This is the epipolar
    distance that the paper compares to 5e-4 indoors and 1e-4 outdoors: at a focal length of 577
    pixels, 5e-4 stands for 9 pixels in each image.
    """
    x0 = np.c_[np.asarray(rays0, np.float64).reshape(-1, 2), np.ones(len(rays0))]
    x1 = np.c_[np.asarray(rays1, np.float64).reshape(-1, 2), np.ones(len(rays1))]
    line1 = x0 @ essential.T
    line0 = x1 @ essential
    algebraic = np.sum(x1 * line1, axis=1)
    norm1 = np.sum(line1[:, :2] ** 2, axis=1)
    norm0 = np.sum(line0[:, :2] ** 2, axis=1)
    return algebraic**2 * (1 / np.maximum(norm1, 1e-300) + 1 / np.maximum(norm0, 1e-300))


# --- Precision over the number of matches ------------------------------------------------------


def precision_curve(
    scores: Sequence[NDArray], correct: Sequence[NDArray], thresholds: ArrayLike
) -> tuple[Floats, Floats]:
    """Mean number of correct matches and mean precision per confidence threshold (figure 9).

    ``scores`` and ``correct`` hold one array per pair. Pairs without matches left do not enter the
    precision; they do enter the number.
    """
    counts, precisions = [], []
    for threshold in np.asarray(thresholds, np.float64).ravel():
        kept = [c[s >= threshold] for s, c in zip(scores, correct, strict=True)]
        counts.append(float(np.mean([np.count_nonzero(c) for c in kept])) if kept else 0.0)
        precisions.append(mean_defined([np.mean(c) if len(c) else np.nan for c in kept]))
    return np.array(counts), np.array(precisions)


@dataclass(frozen=True, eq=False)
class Reliability:
    """How confidence and correctness agree in equal bins of the confidence, (B,) each.

    ``confidence`` and ``accuracy`` are means, NaN in empty bins; ``count`` the numbers of matches.
    """

    confidence: Floats
    accuracy: Floats
    count: Ints

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean |accuracy - confidence| over matches; NaN without."""
        total = int(self.count.sum())
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.count).sum() / total) if total else float("nan")


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> Reliability:
    """The reliability diagram of matches with ``confidence`` (K,) in [0, 1] and ``correct`` (K,).

    Guo et al., ICML 2017; the last bin includes 1.
    """
    p, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (p, right)]
    return Reliability(means[0], means[1], count)


def _failures_infinite(errors: ArrayLike) -> Floats:
    values = np.asarray(errors, np.float64).ravel()
    return np.where(np.isnan(values), np.inf, values)


def _rows(pairs: NDArray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in np.asarray(pairs).tolist()]
