"""Whatever the matches, the invariants of tracks hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.mapping.tracks import Claim, Tracks, relabelled, shared_ids
from superglue_ros.types import NO_TRACK, MatchKind


def claim(kind, reference_ids, pairs, scores=None, verified=None):
    pairs = np.array(pairs, np.int32).reshape(-1, 2)
    return Claim(
        kind,
        np.asarray(reference_ids, np.int64),
        pairs[:, 0],
        pairs[:, 1],
        np.asarray(scores if scores is not None else np.ones(len(pairs)), np.float32),
        np.asarray(verified if verified is not None else np.ones(len(pairs)), bool),
    )


@st.composite
def random_frames(draw):
    """A seed, the number of frames, and keypoints of each."""
    return draw(st.integers(0, 2**32 - 1)), draw(st.lists(st.integers(0, 12), max_size=8))


@settings(max_examples=150, deadline=None)
@given(random_frames())
def test_invariants_hold_for_random_matches(frames):
    seed, sizes = frames
    rng = np.random.default_rng(seed)
    tracks = Tracks()
    keyframes: list[np.ndarray] = []
    retired: set[int] = set()
    for size in sizes:
        claims = []
        for ids in keyframes:
            count = int(rng.integers(0, min(len(ids), size) + 1))
            pairs = np.stack([rng.permutation(len(ids))[:count], rng.permutation(size)[:count]], 1)
            kind = MatchKind(int(rng.choice([MatchKind.KEYFRAME, MatchKind.LOOP])))
            claims.append(claim(kind, ids, pairs, rng.random(count), rng.random(count) < 0.8))
        first_new = tracks.next_id
        tracking = tracks.extend(size, claims, keyframes)
        keyframes = [relabelled(ids, tracking.merged) for ids in keyframes]
        before = {int(i) for ids in keyframes for i in ids}

        seen = tracking.ids[tracking.ids != NO_TRACK]
        assert len(np.unique(seen)) == len(seen), "a landmark at two keypoints of one frame"
        assert set(seen.tolist()) <= before, "a landmark out of nowhere"
        for ids in keyframes:
            assert len(np.unique(ids)) == len(ids), "a merge put a landmark twice into a keyframe"
        for old, new in tracking.merged.items():
            assert new < old, "the older id survives"
            assert new not in tracking.merged, "a replacement is itself replaced"
        retired |= set(tracking.merged)
        assert not retired & (before | set(seen.tolist())), "a retired id is in use"
        for one in claims:
            renewed = claim(
                one.kind,
                relabelled(one.reference_ids, tracking.merged),
                np.stack([one.index_ref, one.index_query], 1),
                one.scores,
                one.verified,
            )
            shared = shared_ids(renewed, tracking.ids)
            carrying = shared != NO_TRACK
            assert one.verified[carrying].all()
            np.testing.assert_array_equal(
                shared[carrying], renewed.reference_ids[one.index_ref[carrying]]
            )
            np.testing.assert_array_equal(shared[carrying], tracking.ids[one.index_query[carrying]])
        complete = tracks.begin(tracking.ids)
        assert (complete != NO_TRACK).all()
        new = complete[tracking.ids == NO_TRACK]
        np.testing.assert_array_equal(new, first_new + np.arange(len(new)))
        keyframes.append(complete)


def test_a_matched_keypoint_inherits_the_landmark():
    tracks = Tracks()
    first = tracks.begin(np.full(3, NO_TRACK, np.int64))
    tracking = tracks.extend(2, [claim(MatchKind.KEYFRAME, first, [[2, 0]])], [first])
    assert tracking.ids.tolist() == [2, NO_TRACK]
    assert tracking.merged == {}


def test_only_verified_matches_count():
    one = claim(MatchKind.KEYFRAME, [0, 1], [[0, 0], [1, 1]], verified=[False, True])
    tracking = Tracks().extend(2, [one])
    assert tracking.ids.tolist() == [NO_TRACK, 1]
    assert shared_ids(one, tracking.ids).tolist() == [NO_TRACK, 1]


def test_two_keyframes_outvote_a_more_confident_one():
    claims = [
        claim(MatchKind.KEYFRAME, [5], [[0, 0]], [0.9]),
        claim(MatchKind.KEYFRAME, [7], [[0, 0]], [0.6]),
        claim(MatchKind.KEYFRAME, [7], [[0, 0]], [0.5]),
    ]
    assert Tracks().extend(1, claims).ids.tolist() == [7]


def test_a_landmark_claimed_twice_goes_to_the_more_confident_keypoint():
    claims = [
        claim(MatchKind.KEYFRAME, [5], [[0, 0]], [0.4]),
        claim(MatchKind.KEYFRAME, [5], [[0, 1]], [0.8]),
    ]
    assert Tracks().extend(2, claims).ids.tolist() == [NO_TRACK, 5]


def test_a_loop_merges_and_says_so():
    old, recent = np.array([3, 4]), np.array([90, 91])
    claims = [
        claim(MatchKind.KEYFRAME, recent, [[0, 0], [1, 1]]),
        claim(MatchKind.LOOP, old, [[0, 0], [1, 1]]),
    ]
    tracking = Tracks().extend(2, claims, [old, recent])
    assert tracking.merged == {90: 3, 91: 4}
    assert tracking.ids.tolist() == [3, 4]


def test_a_loop_never_merges_what_a_keyframe_sees_at_two_pixels():
    both = np.array([3, 90])
    claims = [
        claim(MatchKind.KEYFRAME, [90], [[0, 0]]),
        claim(MatchKind.LOOP, [3], [[0, 0]]),
    ]
    tracking = Tracks().extend(1, claims, [both])
    assert tracking.merged == {}
    assert tracking.ids.tolist() == [90]


def test_tracking_alone_merges_nothing():
    claims = [
        claim(MatchKind.KEYFRAME, [1], [[0, 0]], [0.9]),
        claim(MatchKind.KEYFRAME, [2], [[0, 0]], [0.8]),
    ]
    tracking = Tracks().extend(1, claims, [np.array([1]), np.array([2])])
    assert (tracking.ids.tolist(), tracking.merged) == ([1], {})


@pytest.mark.parametrize("loaded, following", [([7, 2], 8), ([], 0)])
def test_ids_of_a_loaded_map_are_not_given_out_again(loaded, following):
    tracks = Tracks()
    tracks.reserve(np.array(loaded, np.int64))
    assert tracks.begin(np.array([NO_TRACK], np.int64)).tolist() == [following]
