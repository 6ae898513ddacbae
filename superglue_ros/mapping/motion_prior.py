"""Guided matching of consecutive frames: candidates near the predicted place.

A keypoint of a keyframe is expected where the frame before saw it, moved as the image moved from
the frame before that one. Around that place the most similar keypoint is taken if it is so in both
directions; no network runs. Geometry decides whether that was good enough (:meth:`MotionPrior.good`
and the pipeline): if not, or if the frame adds something to the map, the matcher is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.mapping.verification import FramePair
from superglue_ros.matchers.base import by_score
from superglue_ros.types import NO_TRACK, Correspondences, Features, FloatArray, FrameId

LEAST = 30
"""Places of the frame before, and landmarks of both frames before, from which to predict."""
KEPT_SHARE = 0.6
"""Of the inliers of the frame before with the same keyframe, or the matcher is asked."""
WIDEST, NARROWEST = 0.1, 0.02
"""Radius of the search, in parts of the image's longer side."""
_MARGIN = 3.0  # times what the last prediction missed by, at its 80th percentile
_PATIENCE = 2.0  # a longer step in time than so many steps before is not predicted


@dataclass(frozen=True, eq=False)
class _Seen:
    """Where the frame before saw the keypoints ``index`` of a keyframe, (K, 2) pixels."""

    index: NDArray[np.int32]
    points: FloatArray


class MotionPrior:
    """What the last two frames of a camera say about the next one."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing, as at the start and after a reset."""
        self._last: Keyframe | None = None
        self._step_ns = 0
        self._motion: NDArray[np.float64] | None = None
        self._seen: dict[FrameId, _Seen] = {}
        self._missed = np.inf

    def guide(self, reference: Keyframe, query: Keyframe) -> Correspondences | None:
        """Matches near the predicted places; None where nothing can be predicted."""
        predicted = self._predict(reference, query.id.stamp_ns)
        if predicted is None or not len(query.features):
            return None
        longest = max(query.features.width, query.features.height)
        radius = np.clip(_MARGIN * self._missed, NARROWEST * longest, WIDEST * longest)
        return _near(reference.features, query.features, predicted, float(radius))

    def good(self, pair: FramePair) -> bool:
        """Whether a guided pair is as good as that of the frame before."""
        seen = self._seen.get(pair.matches.reference)
        least = LEAST if seen is None else max(LEAST, KEPT_SHARE * len(seen.index))
        return pair.tracked and int(pair.verified.sum()) >= least

    def learn(self, query: Keyframe, pairs: Iterable[tuple[Keyframe, FramePair]]) -> None:
        """Take in a frame with its landmarks, and its verified pairs with their references."""
        seen: dict[FrameId, _Seen] = {}
        missed: list[FloatArray] = []
        for reference, pair in pairs:
            good = pair.verified
            if good.sum() < LEAST:
                continue
            index, points = pair.matches.index_ref[good], pair.matches.points_query[good]
            predicted = self._predict(reference, query.id.stamp_ns)
            if predicted is not None:
                missed.append(np.linalg.norm(predicted[index] - points, axis=1))
            seen[reference.id] = _Seen(index, points)
        self._missed = float(np.percentile(np.concatenate(missed), 80)) if missed else np.inf
        before, self._motion = self._last, None
        if before is not None:
            self._motion = _motion(before.features, query.features)
            self._step_ns = query.id.stamp_ns - before.id.stamp_ns
        self._last, self._seen = query, seen

    def _predict(self, reference: Keyframe, stamp_ns: int) -> FloatArray | None:
        """(M, 2) pixels where the reference's keypoints are expected; None where unknown."""
        last = self._last
        if last is None or self._motion is None:
            return None
        if not 0 < stamp_ns - last.id.stamp_ns <= _PATIENCE * self._step_ns:
            return None
        keypoints = reference.features.keypoints
        if reference.id == last.id:
            before = keypoints
        elif reference.id in self._seen:
            before = keypoints + _spread(keypoints, self._seen[reference.id])
        else:
            return None
        return np.asarray(before @ self._motion[:, :2].T + self._motion[:, 2], np.float32)


def _spread(keypoints: FloatArray, seen: _Seen) -> FloatArray:
    """(M, 2) how far every keypoint moved: itself, or the nearest one that was seen."""
    moved = seen.points - keypoints[seen.index]
    _, nearest = cKDTree(keypoints[seen.index]).query(keypoints)
    return np.asarray(moved[nearest], np.float32)


def _motion(before: Features, last: Features) -> NDArray[np.float64] | None:
    """(2, 3) similarity that moves the landmarks of one frame to those of the next."""
    shared, i, j = np.intersect1d(before.track_ids, last.track_ids, return_indices=True)
    known = shared != NO_TRACK
    if known.sum() < LEAST:
        return None
    found, _ = cv2.estimateAffinePartial2D(
        before.keypoints[i[known]],
        last.keypoints[j[known]],
        method=cv2.RANSAC,
        ransacReprojThreshold=0.02 * max(last.width, last.height),
    )
    return None if found is None else np.asarray(found, np.float64)


def _near(
    reference: Features, query: Features, predicted: FloatArray, radius: float
) -> Correspondences:
    """Most similar in both directions among those at most ``radius`` from the predicted place."""
    pairs = cKDTree(predicted).sparse_distance_matrix(
        cKDTree(query.keypoints), radius, output_type="ndarray"
    )
    if not len(pairs) or reference.descriptors is None or query.descriptors is None:
        return Correspondences.empty()
    a, b = pairs["i"], pairs["j"]
    likeness = np.einsum("kd,kd->k", reference.descriptors[a], query.descriptors[b])
    best_a = np.full(len(reference), -np.inf)
    best_b = np.full(len(query), -np.inf)
    np.maximum.at(best_a, a, likeness)
    np.maximum.at(best_b, b, likeness)
    keep = np.flatnonzero((likeness == best_a[a]) & (likeness == best_b[b]))
    _, first = np.unique(a[keep], return_index=True)  # of equals, one
    keep = keep[first]
    _, first = np.unique(b[keep], return_index=True)
    keep = keep[np.sort(first)]
    distance = np.sqrt(np.maximum(2 - 2 * likeness[keep], 0))
    return by_score(a[keep], b[keep], np.clip(1 - distance / 2, 0, 1))
