"""Ground-truth matches between two sets of keypoints (paper, appendix E).

A label is the index of the partner, -1 for a keypoint that has none, -2 where the ground truth is
ambiguous, which the loss ignores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.settings import setting

Array = NDArray[np.float64]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

UNMATCHED = -1
IGNORED = -2


@dataclass(frozen=True)
class LabelThresholds:
    """Reprojection errors in pixels: a match below ``match``, no partner above ``unmatched``.

    ``unmatched`` None: every keypoint outside of the matches has no partner. The paper: 3 and None
    for homographies, 5 and 15 indoors, 3 and 5 outdoors.
    """

    match: float = 3.0
    unmatched: float | None = None


HOMOGRAPHY = LabelThresholds(3.0, None)
INDOOR = LabelThresholds(5.0, 15.0)
OUTDOOR = LabelThresholds(3.0, 5.0)


@dataclass(frozen=True)
class LabelRule:
    """Choices that the paper leaves open, and alternatives to its rule; defaults: the paper's."""

    error: str = setting(
        "forward",
        "Reprojection error of a pair: forward, of image 0 in image 1; mean, of both directions "
        "where both are known, else the one that is.",
        choices=("forward", "mean"),
    )
    ambiguous: str = setting(
        "unmatched",
        "Keypoints of homographies that are near another's match but in none: unmatched, or "
        "ignored by the loss.",
        choices=("unmatched", "ignored"),
    )


PAPER = LabelRule()


@dataclass(frozen=True, eq=False)
class Projection:
    """Where the keypoints of one image appear in the other.

    ``points`` (N, 2) pixels, NaN where unknown; ``hidden`` (N,) known to be invisible there (out
    of the image or occluded); ``unknown`` (N,) without ground truth, such as missing depth.
    """

    points: Array
    hidden: Mask
    unknown: Mask


@dataclass(frozen=True, eq=False)
class MatchLabels:
    """Partner of every keypoint: ``matches0`` (M,) int32 into image 1, ``matches1`` (N,)."""

    matches0: Labels
    matches1: Labels


def label_matches(
    keypoints0: NDArray[np.floating],
    keypoints1: NDArray[np.floating],
    projection01: Projection,
    projection10: Projection,
    thresholds: LabelThresholds,
    rule: LabelRule = PAPER,
) -> MatchLabels:
    """Labels of (M, 2) and (N, 2) keypoints, given where each appears in the other image.

    Matches are the entries of the (M, N) matrix of reprojection errors that are the minimum of
    their row and column and below ``thresholds.match``. Of the others, hidden keypoints and those
    whose smallest error is above ``thresholds.unmatched`` have no partner, and the rest is ignored.
    """
    errors = _errors(keypoints0, keypoints1, projection01, projection10, rule.error == "mean")
    far = thresholds.unmatched
    if far is None:
        far = thresholds.match if rule.ambiguous == "ignored" else -np.inf
    matches0 = _without_partner(errors, projection01, far)
    matches1 = _without_partner(errors.T, projection10, far)
    if errors.size:
        best1 = errors.argmin(axis=1)
        rows = np.arange(len(errors))
        mutual = errors.argmin(axis=0)[best1] == rows
        rows = rows[mutual & (errors[rows, best1] < thresholds.match)]
        matches0[rows] = best1[rows]
        matches1[best1[rows]] = rows
    return MatchLabels(matches0, matches1)


def project_homography(
    keypoints: NDArray[np.floating], homography: Array, width: int, height: int
) -> Projection:
    """Keypoints (N, 2) under a homography into an image of ``width`` x ``height`` pixels."""
    homogeneous = np.c_[keypoints, np.ones(len(keypoints))] @ homography.T
    behind = homogeneous[:, 2] <= 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        points = homogeneous[:, :2] / homogeneous[:, 2:]
    points[behind] = np.nan
    hidden = behind | ~inside(points, width, height)
    return Projection(points, hidden, np.zeros(len(points), bool))


def inside(points: Array, width: int, height: int) -> Mask:
    """Whether pixels (N, 2) lie on an image; NaN does not."""
    with np.errstate(invalid="ignore"):
        low = (points >= -0.5).all(axis=1)
        return np.asarray(low & (points < [width - 0.5, height - 0.5]).all(axis=1))


def subset(labels: MatchLabels, kept0: NDArray[np.intp], kept1: NDArray[np.intp]) -> MatchLabels:
    """Labels after keeping only some keypoints; one whose partner was dropped is unmatched."""
    return MatchLabels(
        _remap(labels.matches0[kept0], kept1, len(labels.matches1)),
        _remap(labels.matches1[kept1], kept0, len(labels.matches0)),
    )


def _remap(matches: Labels, kept: NDArray[np.intp], count: int) -> Labels:
    new_index = np.full(count, UNMATCHED, np.int32)
    new_index[kept] = np.arange(len(kept), dtype=np.int32)
    out = matches.copy()
    matched = matches >= 0
    out[matched] = new_index[matches[matched]]
    return out


def _errors(
    keypoints0: NDArray[np.floating],
    keypoints1: NDArray[np.floating],
    projection01: Projection,
    projection10: Projection,
    both_ways: bool,
) -> Array:
    """Reprojection errors (M, N), infinite where unknown; see :class:`LabelRule`."""
    forward = _distances(projection01, keypoints1)
    if not both_ways:
        return forward
    backward = _distances(projection10, keypoints0).T
    both = np.isfinite(forward) & np.isfinite(backward)
    return np.where(both, (forward + backward) / 2, np.fmin(forward, backward))


def _distances(projection: Projection, keypoints: NDArray[np.floating]) -> Array:
    distances = np.linalg.norm(projection.points[:, None] - keypoints[None], axis=2)
    distances[
        projection.hidden | projection.unknown | ~np.isfinite(projection.points).all(axis=1)
    ] = np.inf
    return distances


def _without_partner(errors: Array, projection: Projection, threshold: float) -> Labels:
    """-1 where a keypoint is known to have no partner, else -2, for the rows of ``errors``."""
    smallest = errors.min(axis=1) if errors.shape[1] else np.full(len(errors), np.inf)
    alone = projection.hidden | (~projection.unknown & (smallest > threshold))
    return np.where(alone, UNMATCHED, IGNORED).astype(np.int32)
