"""Poses of frames in a map whose keyframes have poses, on a world of points with exact truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.geometry.angle_errors import rotation_error_deg
from superglue_ros.geometry.rotation import log
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.pipeline import FrameResult, Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import MatchKind, PoseStatus

from ..landmark_world import LandmarkWorld, heading

SETTINGS = {"device": "cpu", "front_end.name": "sift", "matcher.name": "ratio"}
CONFIG = from_flat(Config, SETTINGS)
# 99.9 % of the normalised squared errors of six numbers lie below, if their covariance is true.
CHI2_999 = 22.5


def position(degrees: float) -> np.ndarray:
    """On a circle of 1 m around the origin, from where the camera looks outwards."""
    return heading(degrees) @ [0, 0, 1.0]


def drive(pipeline, world, degrees, first=1000, uncalibrated=False, **options):
    """The results of frames at these places, each with its place."""
    results = []
    for number, angle in enumerate(degrees, first):
        frame, _ = world.frame(number, heading(angle), position(angle), **options)
        if uncalibrated:
            frame = dataclasses.replace(frame, camera=None)
        results.append((angle, pipeline.process(frame)))
    return results


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A map of 90 degrees of the world, whose keyframes have their true poses."""
    world, pipeline = LandmarkWorld(), Pipeline(CONFIG)
    drive(pipeline, world, range(0, 90, 10), first=0, with_depth=True)
    for keyframe in pipeline.keyframes:
        angle = 10.0 * keyframe.id.id
        exact = UncertainPose(heading(angle), position(angle), np.zeros((6, 6)))
        pipeline.keyframes.place(keyframe.id, exact)
    file = tmp_path_factory.mktemp("known") / "map"
    pipeline.save_map(file)
    return world, file, len(pipeline.keyframes)


@pytest.fixture
def loaded(known):
    world, file, keyframes = known
    pipeline = Pipeline(CONFIG)
    assert pipeline.load_map(file) == pipeline.keyframes.placed == keyframes
    return pipeline, world


def assert_true(angle: float, result: FrameResult, metres=0.01, degrees=0.3) -> float:
    """The pose is the true one; returns its error by its own covariance (NEES)."""
    pose = result.map_pose
    assert pose is not None, result.unplaced
    assert result.unplaced == ""
    assert np.linalg.norm(pose.translation - position(angle)) < metres
    assert rotation_error_deg(pose.rotation, heading(angle)) < degrees
    error = np.r_[pose.translation - position(angle), log(pose.rotation @ heading(angle).T)]
    return float(error @ np.linalg.solve(pose.covariance, error))


@pytest.mark.parametrize("with_depth", [False, True])
def test_every_frame_has_its_pose_and_the_map_does_not_grow(loaded, with_depth):
    pipeline, world = loaded
    before = len(pipeline.keyframes)
    results = drive(pipeline, world, np.arange(3, 80, 8.0), with_depth=with_depth)
    nees = [assert_true(angle, result) for angle, result in results]
    assert max(nees) < CHI2_999
    assert np.mean(nees) > 0.05  # the world has none of the systematic errors that are allowed for
    # The map's own keyframes take their turn as reference.
    assert len(pipeline.keyframes) == before
    references = {pair.matches.reference.id for _, r in results for pair in r.pairs if pair.tracked}
    assert len(references) >= 3
    assert all(one.matches.kind is not MatchKind.LOOP for _, r in results for one in r.pairs)


def test_a_second_run_goes_on_with_the_map_and_a_third_one_finds_both(known, loaded, tmp_path):
    pipeline, world = loaded
    sigma = []
    for angle, result in drive(pipeline, world, np.arange(60, 170, 8.0), with_depth=True):
        assert_true(angle, result)
        sigma.append(np.sqrt(np.trace(result.map_pose.covariance[:3, :3])))
    assert sigma[-1] > 1.5 * sigma[0]  # the errors of the keyframes in between add up
    kept = pipeline.save_map(tmp_path / "both", last_frame=1100)
    assert kept == pipeline.keyframes.placed >= known[2] + 2
    third = Pipeline(CONFIG)
    assert third.load_map(tmp_path / "both") == third.keyframes.placed == kept
    runs = []
    for number, angle in enumerate([20.0, 150.0]):
        # Without depth, and far apart: relocalised both times.
        ((_, result),) = drive(third, world, [angle], first=2000 + number)
        assert_true(angle, result, metres=0.03, degrees=0.5)
        runs += [p.matches.reference.id >= 1000 for p in result.pairs if p.tracked]
    assert not runs[0]
    assert runs[-1]
    for before, after in zip(pipeline.keyframes, third.keyframes, strict=True):
        for name in ("rotation", "translation", "covariance"):
            np.testing.assert_array_equal(getattr(before.pose, name), getattr(after.pose, name))


def test_a_camera_without_depth_is_placed_as_far_as_the_map_reaches(loaded):
    pipeline, world = loaded
    results = drive(pipeline, world, np.arange(75, 180, 6.0))
    placed = [angle for angle, result in results if result.map_pose is not None]
    assert placed == [angle for angle, _ in results[: len(placed)]]
    assert 100 <= placed[-1] <= 130  # keyframes of this run pass the map's points on
    for angle, result in results[: len(placed)]:
        assert_true(angle, result, metres=0.05, degrees=1.0)
    reasons = {result.unplaced for _, result in results[len(placed) :]}
    assert reasons <= {
        "the scale is unknown: neither frame nor keyframe has depth where they match",
        "the keyframes that it matches have no pose in the map",
    }
    # Back in the map, without having been lost.
    back = drive(pipeline, world, np.arange(160, 40, -10.0), first=1100)
    assert not [r for _, r in back if not r.pairs[0].tracked]
    for angle, result in back[-3:]:
        assert_true(angle, result)


def test_keyframes_from_before_the_map_was_found_get_their_pose_with_it(known):
    world, file, _ = known
    pipeline = Pipeline(CONFIG)
    pipeline.load_map(file)
    results = drive(pipeline, world, np.arange(190, 60, -8.0), with_depth=True)
    reasons = [result.unplaced for _, result in results[:4]]
    assert reasons == [
        *["no keyframe is recognised"] * 2,
        *["the keyframes that it matches have no pose in the map"] * 2,
    ]
    assert_true(*results[-1])
    first = next(r for _, r in results if r.map_pose is not None)
    assert any(one.matches.kind in (MatchKind.LOOP, MatchKind.RELOCALISE) for one in first.pairs)
    ones = {k.id.id: k for k in pipeline.keyframes if k.id.id >= 1000}
    placed = [number for number, keyframe in ones.items() if keyframe.pose is not None]
    joined = [n for n in placed if n < first.frame_id.id]
    assert joined, "no keyframe from before was placed"
    for number in joined:
        angle = 190 - 8.0 * (number - 1000)
        assert np.linalg.norm(ones[number].pose.translation - position(angle)) < 0.05


def test_why_a_frame_has_no_place_is_said(known):
    world, file, _ = known
    pipeline = Pipeline(CONFIG)
    pipeline.load_map(file)
    ((_, known_place),) = drive(pipeline, world, [20.0], first=1001)
    assert_true(20.0, known_place)
    ((_, result),) = drive(pipeline, world, [22.0], first=1002, uncalibrated=True)
    assert (result.map_pose, result.unplaced) == (None, "the camera is not calibrated")
    ((_, result),) = drive(pipeline, LandmarkWorld(seed=9), [20.0], first=1003)
    assert result.pairs[0].pose.status is PoseStatus.LOST
    assert (result.map_pose, result.unplaced) == (None, "no keyframe is recognised")
    pipeline.reset()
    results = drive(pipeline, world, [20.0, 22.0], first=1010)
    assert [(r.map_pose, r.unplaced) for _, r in results] == [(None, "")] * 2


def test_the_frame_before_may_be_the_one_that_is_placed(known):
    """With keyframes.sequential: it is no keyframe."""
    world, file, _ = known
    pipeline = Pipeline(from_flat(Config, {**SETTINGS, "keyframes.sequential": True}))
    pipeline.load_map(file)
    for angle, result in drive(pipeline, world, [30.0, 32.0, 34.0], with_depth=True):
        assert_true(angle, result)
    assert MatchKind.SEQUENTIAL in {one.matches.kind for one in result.pairs}
