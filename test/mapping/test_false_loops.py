"""A place that looks like another: the loop that is not one must not join landmarks for good."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.types import NO_TRACK, MatchKind, PoseStatus

from ..landmark_world import LandmarkWorld, heading
from ..test_pipeline_map import make, turn


def lookalike(copies: int) -> LandmarkWorld:
    """A world in which ``copies`` points before the first view stand behind it once more."""
    world = LandmarkWorld(count=700)
    ahead = np.flatnonzero(np.abs(np.arctan2(world.points[:, 0], world.points[:, 2])) < 0.4)
    chosen = ahead[:copies]
    assert len(chosen) == copies
    world.points = np.concatenate([world.points[chosen] @ heading(180.0).T, world.points])
    world.descriptors = np.concatenate([world.descriptors[chosen], world.descriptors])
    return world


@pytest.mark.parametrize("least", [45, 30])
def test_a_false_loop_joins_landmarks_only_if_it_passes_for_a_strong_one(least):
    pipeline = make(
        keyframes__loop_similarity=0.0,
        keyframes__loop_merge_inliers=least,
        keyframes__loop_confirmations=0,
    )
    false = []
    for frame, _ in turn(lookalike(40), list(np.arange(0, 188, 12.0))):
        for pair in pipeline.process(frame).pairs:
            if pair.matches.kind is MatchKind.LOOP and pair.tracked:
                false.append(pair)
    assert false, "the lookalike was not taken for the place"
    for pair in false:
        assert 30 <= pair.pose.num_inliers < 45
        assert pair.pose.status in (PoseStatus.VALID, PoseStatus.ROTATION_ONLY)
    joined = sum(len(pair.matches.merged_from) for pair in false)
    landmarks = sum(int((pair.matches.track_ids != NO_TRACK).sum()) for pair in false)
    if least == 45:
        assert (joined, landmarks) == (0, 0)
    else:
        assert landmarks > 20


@pytest.mark.parametrize("confirmations", [0, 1])
def test_one_view_that_looks_like_another_place_closes_no_loop(confirmations):
    """What stands before one keyframe only, as a poster that is carried past."""
    pipeline = make(keyframes__loop_similarity=0.0, keyframes__loop_confirmations=confirmations)
    world, once = LandmarkWorld(count=700), lookalike(80)
    degrees = list(np.arange(0, 240, 12.0))
    sighted, closed = [], []
    for number, (frame, _) in enumerate(turn(world, degrees)):
        if degrees[number] == 180:
            frame, _ = next(turn(once, [180.0], first=number))
        for pair in pipeline.process(frame).pairs:
            if pair.matches.kind is MatchKind.LOOP and pair.pose.num_inliers >= 30:
                (closed if pair.tracked else sighted).append(pair)
    assert len(sighted) + len(closed) == 1
    joined = int(((sighted + closed)[0].matches.track_ids != NO_TRACK).sum())
    if confirmations:
        assert sighted[0].pose.status is PoseStatus.UNCONFIRMED
        assert joined == 0
    else:
        assert closed[0].strong
        assert joined >= 45
