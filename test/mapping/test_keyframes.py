"""The store is bounded and deterministic; insertion, selection and removal follow their rules."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from superglue_ros.config import KeyframesConfig
from superglue_ros.errors import FeaturesError
from superglue_ros.mapping.keyframes import Keyframe, KeyframeStore, Overlap
from superglue_ros.types import Features, FrameId, MatchKind

GOOD = Overlap(matches=200, share=0.8, coverage=0.9, parallax_rad=0.01)


def features(ids, width=64, height=48) -> Features:
    n = len(ids)
    rng = np.random.default_rng(n)
    pixels = (rng.random((n, 2)) * [width - 1, height - 1]).astype(np.float32)
    scores = np.ones(n, np.float32)
    return Features(pixels, scores, width, height, "test", track_ids=np.asarray(ids, np.int64))


def direction(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def keyframe(number: int, ids=(), looks: float | None = None) -> Keyframe:
    described = None if looks is None else direction(looks)
    return Keyframe(FrameId(number), features(ids), None, global_descriptor=described)


def store(**settings) -> KeyframeStore:
    return KeyframeStore(KeyframesConfig(**settings))


def numbers(candidates) -> list[int]:
    return [candidate.keyframe.id.id for candidate in candidates]


def test_the_first_frame_with_keypoints_is_inserted():
    assert store().should_insert(features(range(20)), None)
    assert not store().should_insert(features(range(15)), None)


@pytest.mark.parametrize(
    "change",
    [{"matches": 29}, {"share": 0.49}, {"coverage": 0.39}, {"parallax_rad": np.deg2rad(6.1)}],
)
def test_each_rule_alone_asks_for_a_keyframe(change):
    keyframes = store(min_matches=30, min_matched_share=0.5, min_coverage=0.4, max_parallax_deg=6.0)
    frame = features(range(100))
    assert not keyframes.should_insert(frame, GOOD)
    assert keyframes.should_insert(frame, dataclasses.replace(GOOD, **change))


def test_overlap_measures_share_and_coverage():
    pixels = np.array([[0, 0], [1, 1], [63, 0], [63, 47]], np.float32)
    query = Features(pixels, np.ones(4, np.float32), 64, 48, "test")
    reference = features(range(8))
    overlap = Overlap.measure(reference, query, np.array([0, 1, 3], np.int32), float("nan"))
    assert overlap == Overlap(matches=3, share=3 / 8, coverage=2 / 3, parallax_rad=0.0)


def test_neighbours_are_the_reference_then_the_most_covisible():
    keyframes = store(window=3)
    keyframes.insert(keyframe(0, [1, 2, 3, 4]))
    keyframes.insert(keyframe(1, [4]))
    keyframes.insert(keyframe(2, [5]))
    keyframes.insert(keyframe(3, [2, 3, 4, 5, 6]))
    assert numbers(keyframes.neighbours()) == [3, 0, 2]
    assert {c.kind for c in keyframes.neighbours()} == {MatchKind.KEYFRAME}


def test_the_window_is_filled_with_the_newest():
    keyframes = store(window=3)
    for number in range(4):
        keyframes.insert(keyframe(number))
    assert numbers(keyframes.neighbours()) == [3, 2, 1]


def test_the_frame_before_comes_on_top_where_asked_for():
    keyframes = store(window=1, sequential=True)
    keyframes.insert(keyframe(0))
    keyframes.pass_by(keyframe(0))
    assert numbers(keyframes.neighbours()) == [0]
    keyframes.pass_by(keyframe(1))
    assert [(c.keyframe.id.id, c.kind) for c in keyframes.neighbours()] == [
        (0, MatchKind.KEYFRAME),
        (1, MatchKind.SEQUENTIAL),
    ]
    assert keyframes[FrameId(1)].id.id == 1


def walk(keyframes: KeyframeStore, looks: list[float]) -> None:
    for number, degrees in enumerate(looks):
        connected = [FrameId(number - 1)] if number else []
        keyframes.insert(keyframe(number, [number, number + 1], degrees), connected)


def test_a_loop_candidate_looks_alike_but_is_far_in_the_map():
    keyframes = store(loop_min_gap=2, loop_similarity=0.9)
    walk(keyframes, [0, 40, 80, 120, 160])
    assert numbers(keyframes.loop_candidates(direction(2))) == [0]
    assert keyframes.loop_candidates(direction(2))[0].kind is MatchKind.LOOP


def test_no_loop_to_covisible_or_recent_or_dissimilar_keyframes():
    keyframes = store(loop_min_gap=2, loop_similarity=0.9, loop_candidates=5)
    walk(keyframes, [0, 60, 120, 125])
    assert numbers(keyframes.loop_candidates(direction(123))) == []
    assert store().loop_candidates(direction(0)) == ()
    assert keyframes.loop_candidates(None) == ()


def test_the_gap_does_not_bind_between_unconnected_parts():
    keyframes = store(loop_min_gap=10)
    keyframes.insert(keyframe(0, [0], 0.0))
    keyframes.insert(keyframe(1, [1], 0.0), [FrameId(0)])
    keyframes.insert(keyframe(2, [2], 0.0))
    assert numbers(keyframes.loop_candidates(direction(0))) == [1]
    keyframes.insert(keyframe(3, [3], 0.0), [FrameId(2), FrameId(1)])
    assert numbers(keyframes.loop_candidates(direction(0))) == []


def test_relocalisation_tries_all_by_similarity():
    keyframes = store()
    walk(keyframes, [0, 90, 45])
    candidates = keyframes.relocalisation_candidates(direction(80))
    assert numbers(candidates) == [1, 2, 0]
    assert {c.kind for c in candidates} == {MatchKind.RELOCALISE}
    assert numbers(keyframes.relocalisation_candidates(None)) == [2, 1, 0]


def test_relocalisation_moves_the_reference():
    keyframes = store()
    walk(keyframes, [0, 90, 45])
    keyframes.activate(FrameId(0))
    assert keyframes.reference.id == FrameId(0)
    assert keyframes.newest.id == FrameId(2)
    assert numbers(keyframes.neighbours()) == [0]
    with pytest.raises(KeyError, match="no keyframe 9"):
        keyframes.activate(FrameId(9))


def test_the_map_is_bounded_and_loses_the_redundant():
    keyframes = store(max_keyframes=3)
    for number, ids in enumerate([[1, 2], [3, 4], [1, 2, 3]]):
        assert keyframes.insert(keyframe(number, ids)) == ()
    assert keyframes.insert(keyframe(3, [1, 2, 9])) == (FrameId(0),)
    assert len(keyframes) == 3


def test_without_landmarks_the_map_is_thinned_where_views_are_alike():
    keyframes = store(max_keyframes=3)
    for number, looks in enumerate([0.0, 50.0, 55.0]):
        keyframes.insert(keyframe(number, [], looks))
    assert keyframes.insert(keyframe(3, [], 120.0)) == (FrameId(1),)


def test_the_reference_is_never_removed():
    keyframes = store(max_keyframes=1)
    for number in range(5):
        keyframes.insert(keyframe(number))
        assert [k.id.id for k in keyframes] == [number]
        assert keyframes.reference.id.id == number


@pytest.mark.parametrize("seed", range(3))
def test_same_input_same_map(seed):
    def run() -> tuple:
        rng = np.random.default_rng(seed)
        keyframes = store(max_keyframes=8, window=4, loop_min_gap=2)
        log = []
        for number in range(60):
            new = keyframe(number, rng.integers(0, 40, 12), float(rng.integers(0, 360)))
            looks = new.global_descriptor
            log.append((numbers(keyframes.neighbours()), numbers(keyframes.loop_candidates(looks))))
            log.append(keyframes.insert(new, [FrameId(number - 1)] if number else []))
            assert len(keyframes) <= 8
        return log, [k.id for k in keyframes]

    assert run() == run()


def test_merged_landmarks_are_replaced_everywhere():
    keyframes = store(sequential=True)
    keyframes.insert(keyframe(0, [1, 2]))
    keyframes.insert(keyframe(1, [7, 8]))
    keyframes.pass_by(keyframe(2, [8]))
    keyframes.relabel({7: 1})
    keyframes.relabel({8: 2})
    assert [k.features.track_ids.tolist() for k in keyframes] == [[1, 2], [1, 2]]
    assert keyframes[FrameId(2)].features.track_ids.tolist() == [2]


def test_a_frame_id_is_never_reused():
    keyframes = store()
    keyframes.insert(keyframe(0))
    with pytest.raises(FeaturesError, match="keyframe 0 is already in the map"):
        keyframes.insert(keyframe(0))


def test_clear_forgets_everything():
    keyframes = store()
    walk(keyframes, [0, 1, 2])
    keyframes.clear()
    assert (len(keyframes), keyframes.newest, keyframes.reference) == (0, None, None)
    assert keyframes.neighbours() == ()
