"""Tracks: persistent landmark ids over frames and keyframes.

A landmark begins at a keypoint of a keyframe; a keypoint matched to it inherits it. Four invariants
hold for any input (``test/mapping/test_tracks.py``):

* in one frame a keypoint has at most one landmark, and a landmark at most one keypoint;
* ids only increase: none is reused, even after a reset;
* a matched pair carries a landmark only if both its keypoints do;
* landmarks are merged only by a loop, and never if some keyframe sees both at different
  pixels. The older id survives, and the merge is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from superglue_ros.types import NO_TRACK, BoolArray, FloatArray, IdArray, IntArray, MatchKind

_QUERY = -1  # stands for the current frame among the keyframes that see a landmark


@dataclass(frozen=True, eq=False)
class Claim:
    """The evidence of one matched pair for the landmarks of the current frame.

    ``reference_ids`` (M,) int64 landmarks of the reference's keypoints; of length K: ``index_ref``,
    ``index_query``, ``scores`` in [0, 1], and ``verified`` bool, agrees with the two-view geometry
    (only those count).
    """

    kind: MatchKind
    reference_ids: IdArray
    index_ref: IntArray
    index_query: IntArray
    scores: FloatArray
    verified: BoolArray


@dataclass(frozen=True, eq=False)
class Tracking:
    """Landmarks of the current frame: ``ids`` (N,) int64, -1 = none.

    ``merged`` maps every id that a loop has just retired to the id that replaces it; ``ids``
    already holds the replacements.
    """

    ids: IdArray
    merged: dict[int, int] = field(default_factory=dict)


class Tracks:
    """Assigns landmark ids, and decides which keypoint of a frame observes which landmark."""

    def __init__(self) -> None:
        self._next = 0

    @property
    def next_id(self) -> int:
        """The id the next new landmark gets."""
        return self._next

    def reserve(self, ids: IdArray) -> None:
        """Reserve ``ids``, those of a loaded map: they are never assigned to new landmarks."""
        if len(ids):
            self._next = max(self._next, int(ids.max()) + 1)

    def begin(self, ids: IdArray) -> IdArray:
        """Assign a new landmark to each keypoint without one, for a new keyframe."""
        ids = ids.copy()
        new = ids == NO_TRACK
        ids[new] = np.arange(self._next, self._next + int(new.sum()))
        self._next += int(new.sum())
        return ids

    def extend(
        self, num_keypoints: int, claims: Sequence[Claim], keyframe_ids: Iterable[IdArray] = ()
    ) -> Tracking:
        """Landmarks of a frame of ``num_keypoints`` keypoints, from its matched pairs.

        Where pairs disagree, keypoints and landmarks are assigned greedily by their confidence
        summed over the pairs. ``keyframe_ids``: the landmarks of each keyframe of the map, against
        which merges are checked.
        """
        ids = np.full(num_keypoints, NO_TRACK, np.int64)
        _assign(ids, [claim for claim in claims if claim.kind is not MatchKind.LOOP])
        loops = [claim for claim in claims if claim.kind is MatchKind.LOOP]
        return Tracking(ids, _close_loops(ids, loops, keyframe_ids) if loops else {})


def shared_ids(claim: Claim, query_ids: IdArray) -> IdArray:
    """(K,) the landmark of each matched pair: that of both keypoints if it is the same, else -1."""
    ids = query_ids[claim.index_query]
    same = claim.verified & (ids == claim.reference_ids[claim.index_ref])
    return np.where(same, ids, NO_TRACK)


def relabelled(ids: IdArray, merged: Mapping[int, int]) -> IdArray:
    """``ids`` with every id that ``merged`` retires replaced."""
    if not merged:
        return ids
    return np.array([merged.get(one, one) for one in ids.tolist()], np.int64)


def _assign(ids: IdArray, claims: Sequence[Claim]) -> None:
    """Greedy one-to-one assignment of landmarks to keypoints by summed confidence, in place."""
    landmark, keypoint, score = _votes(claims)
    taken: set[int] = set()
    for i in np.lexsort((keypoint, landmark, -score)):
        if ids[keypoint[i]] == NO_TRACK and int(landmark[i]) not in taken:
            ids[keypoint[i]] = landmark[i]
            taken.add(int(landmark[i]))


def _votes(claims: Sequence[Claim]) -> tuple[IdArray, IdArray, FloatArray]:
    """All (landmark, keypoint) that verified matches propose, once each, with summed confidence."""
    landmarks, keypoints, scores = [], [], []
    for claim in claims:
        proposed = claim.reference_ids[claim.index_ref]
        keep = claim.verified & (proposed != NO_TRACK)
        landmarks.append(proposed[keep])
        keypoints.append(claim.index_query[keep].astype(np.int64))
        scores.append(claim.scores[keep])
    if not landmarks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    pairs = np.stack([np.concatenate(landmarks), np.concatenate(keypoints)])
    unique, inverse = np.unique(pairs, axis=1, return_inverse=True)
    total = np.zeros(unique.shape[1], np.float32)
    np.add.at(total, inverse.reshape(-1), np.concatenate(scores))
    return unique[0], unique[1], total


def _close_loops(
    ids: IdArray, claims: Sequence[Claim], keyframe_ids: Iterable[IdArray]
) -> dict[int, int]:
    """Merge landmarks over loop matches, most confident first; ``ids`` is changed in place."""
    landmark, keypoint, score = _votes(claims)
    involved = np.union1d(landmark, ids[ids != NO_TRACK])
    views: dict[int, set[int]] = {int(one): set() for one in involved}
    for view, seen in enumerate(keyframe_ids):
        for one in np.intersect1d(seen, involved).tolist():
            views[one].add(view)
    for one in ids[ids != NO_TRACK].tolist():
        views[one].add(_QUERY)

    merged: dict[int, int] = {}
    for i in np.lexsort((keypoint, landmark, -score)):
        claimed = _surviving(int(landmark[i]), merged)
        current = int(ids[keypoint[i]])
        if current == NO_TRACK:
            if _QUERY not in views[claimed]:
                ids[keypoint[i]] = claimed
                views[claimed].add(_QUERY)
            continue
        current = _surviving(current, merged)
        if current != claimed and not views[current] & views[claimed]:
            old, new = min(current, claimed), max(current, claimed)
            merged[new] = old
            views[old] |= views.pop(new)
    resolved = {retired: _surviving(retired, merged) for retired in merged}
    ids[:] = relabelled(ids, resolved)
    return resolved


def _surviving(one: int, merged: dict[int, int]) -> int:
    while one in merged:
        one = merged[one]
    return one
