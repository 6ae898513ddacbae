"""Keyframes, tracks, loops and relocalisation at work in the pipeline, on a world of points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.errors import ImageError
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import NO_TRACK, FrameId, MatchKind, PoseStatus

from .landmark_world import LandmarkWorld, heading

BASE = {
    "device": "cpu",
    "front_end.name": "sift",
    "matcher.name": "ratio",
    "keyframes.loop_min_gap": 4,
    "keyframes.relocalise_budget_s": 0.0,
}


def make(**settings) -> Pipeline:
    names = {key.replace("__", "."): value for key, value in settings.items()}
    return Pipeline(from_flat(Config, {**BASE, **names}))


def turn(world: LandmarkWorld, degrees: list[float], first: int = 0, with_depth: bool = False):
    """A camera on a circle of 1 m around the origin that looks outwards."""
    for number, angle in enumerate(degrees, first):
        rotation = heading(angle)
        yield world.frame(number, rotation, rotation @ [0, 0, 1.0], with_depth=with_depth)


def test_a_landmark_id_is_a_point_of_the_world_for_good():
    world, pipeline = LandmarkWorld(), make()
    point_of: dict[int, int] = {}
    keyframes = 0
    for frame, points in turn(world, list(np.arange(0, 90, 5.0))):
        result = pipeline.process(frame)
        keyframes += result.is_keyframe
        ids = result.features.track_ids
        for one, point in zip(ids[ids != NO_TRACK], points[ids != NO_TRACK], strict=True):
            assert point_of.setdefault(int(one), int(point)) == point
        for pair in result.pairs:
            with_id = pair.matches.track_ids != NO_TRACK
            assert with_id.sum() >= 30
            np.testing.assert_array_equal(
                pair.matches.track_ids[with_id], ids[pair.matches.index_query[with_id]]
            )
    assert 3 <= keyframes < 18
    lengths = np.unique(list(point_of.values()), return_counts=True)[1]
    assert lengths.mean() < 1.5, "points lose their landmark"


def test_a_full_turn_closes_the_loop_and_merges_landmarks():
    world, pipeline = LandmarkWorld(), make()
    point_of: dict[int, int] = {}
    merged: dict[int, int] = {}
    loops = []
    for frame, points in turn(world, list(np.arange(0, 400, 8.0))):
        result = pipeline.process(frame)
        ids = result.features.track_ids
        for one, point in zip(ids[ids != NO_TRACK].tolist(), points[ids != NO_TRACK], strict=True):
            assert one not in merged, "a retired landmark is used"
            point_of.setdefault(one, int(point))
        for pair in result.pairs:
            if pair.matches.kind is MatchKind.LOOP:
                loops.append((pair.matches.reference.id, pair.matches.query.id, pair.pose.status))
            old = pair.matches.merged_from.tolist()
            assert not old or pair.matches.kind is MatchKind.LOOP
            merged.update(zip(old, pair.matches.merged_into.tolist(), strict=True))
    closed = [loop for loop in loops if loop[2] is PoseStatus.VALID]
    assert closed, loops
    # The keyframe before the first one sighted the same, and was not yet believed.
    first = closed[0]
    sighted = [loop for loop in loops if loop[2] is PoseStatus.UNCONFIRMED and loop[1] < first[1]]
    assert sighted[-1][0] == first[0]
    for reference, query, _ in closed:
        assert abs((query - reference) * 8 - 360) <= 60, "a false loop"  # views are 77 deg wide
    assert len(merged) >= 20
    wrong = [1 for old, new in merged.items() if point_of[old] != point_of[new]]
    assert not wrong


def test_after_tracking_is_lost_the_frame_is_found_in_the_map():
    world, pipeline = LandmarkWorld(), make(keyframes__lost_frames=3)
    elsewhere = LandmarkWorld(seed=9)
    for frame, _ in turn(world, list(np.arange(0, 100, 10.0))):
        pipeline.process(frame)
    kept = len(pipeline.keyframes)
    frame, _ = next(turn(elsewhere, [0.0], first=10))
    lost = pipeline.process(frame)
    assert [pair.pose.status for pair in lost.pairs] == [PoseStatus.LOST]
    assert not lost.is_keyframe
    frame, points = next(turn(world, [5.0], first=11))
    found = pipeline.process(frame)
    assert found.pairs[0].matches.kind is MatchKind.RELOCALISE
    assert found.pairs[0].pose.status is PoseStatus.VALID
    assert found.pairs[0].matches.reference.id == 0
    assert pipeline.keyframes.reference.id.id in (0, 11)
    assert len(pipeline.keyframes) == kept + found.is_keyframe


def test_a_lasting_loss_begins_a_new_part_of_the_map():
    world, pipeline = LandmarkWorld(), make(keyframes__lost_frames=1)
    for frame, _ in turn(world, [0.0, 6.0, 12.0]):
        pipeline.process(frame)
    kept = len(pipeline.keyframes)
    elsewhere = LandmarkWorld(seed=9)
    results = [pipeline.process(frame) for frame, _ in turn(elsewhere, [0.0, 2.0, 4.0], first=3)]
    assert [result.is_keyframe for result in results] == [False, True, False]
    assert len(pipeline.keyframes) == kept + 1
    assert results[2].pairs[0].tracked
    assert results[2].pairs[0].matches.reference.id == 4


@pytest.mark.parametrize("sequential", [False, True])
def test_after_a_leap_the_frame_before_is_a_keyframe_too(sequential):
    """A turn of 42 degrees: the first keyframe alone would leave hardly a landmark behind."""
    world, pipeline = LandmarkWorld(), make(keyframes__sequential=sequential)
    results = [pipeline.process(frame) for frame, _ in turn(world, [0.0, 20.0, 62.0, 72.0])]
    assert [result.is_keyframe for result in results[:2]] == [True, False]
    pairs = results[2].pairs
    assert [(p.matches.kind, p.matches.reference.id) for p in pairs] == [
        (MatchKind.KEYFRAME, 1),
        (MatchKind.KEYFRAME, 0),
    ]
    assert pairs[0].tracked
    assert [keyframe.id.id for keyframe in pipeline.keyframes][:2] == [0, 1]
    before = pipeline.keyframes[FrameId(1, results[1].frame_id.stamp_ns, "camera")]
    seen = set(before.features.track_ids.tolist())
    assert NO_TRACK not in seen
    for result in results[2:]:
        seen &= set(result.features.track_ids.tolist())
    assert len(seen) >= 15  # of one point in three frames: they carry the scale


def test_depth_needs_no_third_view_to_carry_the_scale_over_a_leap():
    world, pipeline = LandmarkWorld(), make()
    frames = turn(world, [0.0, 20.0, 62.0], with_depth=True)
    results = [pipeline.process(frame) for frame, _ in frames]
    assert [pair.matches.reference.id for pair in results[2].pairs] == [0]


def test_the_frame_before_is_matched_too_where_asked_for():
    world, pipeline = LandmarkWorld(), make(keyframes__sequential=True)
    kinds = [
        [(pair.matches.reference.id, pair.matches.kind) for pair in pipeline.process(frame).pairs]
        for frame, _ in turn(world, [0.0, 1.0, 2.0])
    ]
    assert kinds == [
        [],
        [(0, MatchKind.KEYFRAME)],
        [(0, MatchKind.KEYFRAME), (1, MatchKind.SEQUENTIAL)],
    ]


def test_without_calibration_tracks_go_on_but_looks_alone_close_no_loop():
    world, pipeline = LandmarkWorld(), make()
    kinds = set()
    for frame, _ in turn(world, list(np.arange(0, 400, 8.0))):
        result = pipeline.process(dataclasses.replace(frame, camera=None))
        kinds |= {pair.matches.kind for pair in result.pairs if pair.tracked}
        for pair in result.pairs:
            if pair.matches.kind is MatchKind.KEYFRAME:
                assert (pair.matches.track_ids != NO_TRACK).sum() >= 15
            assert len(pair.matches.merged_from) == 0
    assert kinds == {MatchKind.KEYFRAME}


@pytest.mark.parametrize("limit", [1, 5])
def test_the_map_is_bounded_and_ids_count_on_over_a_reset(limit):
    world, pipeline = LandmarkWorld(), make(keyframes__max_keyframes=limit)
    for frame, _ in turn(world, list(np.arange(0, 90, 8.0))):
        pipeline.process(frame)
        assert len(pipeline.keyframes) <= limit
    given = pipeline.rig.tracks.next_id
    pipeline.reset()
    assert len(pipeline.keyframes) == 0
    frame, _ = next(turn(world, [0.0], first=50))
    assert pipeline.process(frame).features.track_ids.min() >= given


def test_a_jump_back_in_time_drops_the_map_and_a_late_frame_does_not():
    world, pipeline = LandmarkWorld(), make()
    frames = [frame for frame, _ in turn(world, [0.0, 8.0, 16.0], first=10)]
    for frame in frames:
        result = pipeline.process(frame)
    held = [keyframe.id for keyframe in pipeline.keyframes]
    jitter = dataclasses.replace(frames[2], id=FrameId(98, frames[2].id.stamp_ns - 1000))
    assert pipeline.process(jitter).pairs  # a microsecond is no disorder
    held = [keyframe.id for keyframe in pipeline.keyframes]
    late = dataclasses.replace(frames[1], id=FrameId(99, frames[2].id.stamp_ns - 2_000_000))
    with pytest.raises(ImageError, match=r"lies 0\.002000 s before the newest"):
        pipeline.process(late)
    assert [keyframe.id for keyframe in pipeline.keyframes] == held
    assert pipeline.time.count == 0
    # A stamp an hour ahead, and back: nothing is dropped.
    hour = 3_600_000_000_000
    for number, stamp in ((101, frames[2].id.stamp_ns + hour), (102, frames[2].id.stamp_ns + 5)):
        assert pipeline.process(dataclasses.replace(frames[2], id=FrameId(number, stamp))).pairs
    assert pipeline.time.count == 0
    assert set(held) <= {keyframe.id for keyframe in pipeline.keyframes}
    # A bag that starts over.
    again = dataclasses.replace(frames[0], id=FrameId(100, frames[2].id.stamp_ns - 10**9))
    result = pipeline.process(again)
    assert pipeline.time.count == 1
    assert not result.pairs
    assert [keyframe.id.id for keyframe in pipeline.keyframes] == [100]


def test_the_newest_frame_can_be_kept_by_hand():
    world, pipeline = LandmarkWorld(), make()
    assert pipeline.keep_newest() is None
    for frame, _ in turn(world, [0.0, 1.0]):
        result = pipeline.process(frame)
    assert not result.is_keyframe
    assert pipeline.keep_newest() == result.frame_id
    assert pipeline.keep_newest() == result.frame_id
    assert [keyframe.id.id for keyframe in pipeline.keyframes] == [0, 1]
    assert (pipeline.keyframes.newest.features.track_ids != NO_TRACK).all()


def test_a_pair_is_matched_without_touching_the_map():
    world, pipeline = LandmarkWorld(), make()
    (reference, _), (query, _) = turn(world, [0.0, 15.0])
    pair = pipeline.match_pair(reference, query)
    assert pair.pose.status is PoseStatus.VALID
    assert (pair.matches.reference.id, pair.matches.query.id) == (0, 1)
    np.testing.assert_allclose(pair.pose.rotation, heading(15.0), atol=0.01)
    assert len(pipeline.keyframes) == 0
    assert pipeline.rig.tracks.next_id == 0
