"""A new frame's pose from few landmarks and a relative pose, each of which may be wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("gtsam")

from superglue_ros.back_end import loops
from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.placement import Seen, place, resect
from superglue_ros.back_end.scene import Edge, Observation, Scene, in_camera, pose_of
from superglue_ros.back_end.triangulation import position_covariance
from superglue_ros.geometry.rotation import angle, exp
from superglue_ros.types import FrameId, PoseMethod, PoseStatus, RelativePose

from ..landmark_world import CAMERA, heading

CONFIG = BackEndConfig()
REFERENCE, QUERY = FrameId(0), FrameId(1)
TRUE_STEP = pose_of(heading(6.0), np.array([0.5, -0.05, 0.2]))
SIGMA = 0.5 / CAMERA.focal


def step(rotation, translation, status=PoseStatus.VALID, turn_deg=0.3, direction_deg=2.0):
    """A monocular relative pose that claims to be certain to so many degrees."""
    covariance = np.zeros((6, 6))
    if np.any(translation):
        across = np.eye(3) - np.outer(translation, translation)
        covariance[:3, :3] = np.deg2rad(direction_deg) ** 2 * across
    else:
        covariance[:3, :3] = np.eye(3) / 3
    covariance[3:, 3:] = np.deg2rad(turn_deg) ** 2 * np.eye(3)
    return RelativePose(
        REFERENCE,
        QUERY,
        status,
        PoseMethod.ESSENTIAL,
        rotation,
        translation,
        covariance,
        False,
        100,
        80,
        1.0,
        0.4,
        0.05,
    )


def true_relative() -> RelativePose:
    length = np.linalg.norm(TRUE_STEP[:3, 3])
    return step(TRUE_STEP[:3, :3], TRUE_STEP[:3, 3] / length)


def seen(count: int, true_step=TRUE_STEP, noise_px=0.5, spread_m=0.02, seed=0) -> Seen:
    """Landmarks in front of both cameras, as the query sees them; their positions are noisy."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1.5, -1, 4], [2, 1, 7], (count, 3))
    local = in_camera(true_step, points)
    rays = local[:, :2] / local[:, 2:] + noise_px / CAMERA.focal * rng.normal(size=(count, 2))
    noisy = points + spread_m * rng.normal(size=points.shape)
    spread = np.broadcast_to(spread_m**2 * np.eye(3), (count, 3, 3))
    return Seen(noisy, spread, rays, np.full(count, noise_px / CAMERA.focal))


def scene() -> Scene:
    return Scene(poses={REFERENCE: np.eye(4)})


def errors(pose, truth=TRUE_STEP) -> tuple[float, float]:
    """Distance, and turn in degrees."""
    turned = angle(pose[:3, :3].T @ truth[:3, :3])
    return float(np.linalg.norm(pose[:3, 3] - truth[:3, 3])), float(np.rad2deg(turned))


@pytest.mark.parametrize("count", [5, 8, 15])
def test_few_landmarks_give_the_length_and_the_relative_pose_the_rest(count):
    """Resection alone needs more landmarks: it is not even tried."""
    view = seen(count)
    assert resect(view.points, view.rays, CAMERA.focal, CONFIG) is None
    placed = place(scene(), true_relative(), view, CAMERA.focal, CONFIG)
    assert placed.scaled
    off, turned = errors(placed.pose)
    assert off < 0.06
    assert turned < 0.3


def test_many_landmarks_overrule_a_wrong_relative_pose():
    wrong = step(exp(np.array([0, 0.1, 0])) @ TRUE_STEP[:3, :3], np.array([0.0, 1.0, 0.0]))
    placed = place(scene(), wrong, seen(60), CAMERA.focal, CONFIG)
    off, turned = errors(placed.pose)
    assert off < 0.05
    assert turned < 0.6
    assert placed.agreeing.mean() > 0.6


def test_a_third_of_wrong_landmarks_does_no_harm():
    view = seen(12)
    view.rays[:4] = np.random.default_rng(3).uniform(-0.4, 0.4, (4, 2))
    placed = place(scene(), true_relative(), view, CAMERA.focal, CONFIG)
    off, turned = errors(placed.pose)
    assert off < 0.08
    assert turned < 0.4
    assert not placed.agreeing[:4].any()


def test_a_rotation_takes_its_translation_from_the_landmarks():
    nearly = pose_of(heading(6.0), np.array([0.02, 0.0, 0.01]))
    turn = step(nearly[:3, :3], np.zeros(3), PoseStatus.ROTATION_ONLY)
    placed = place(scene(), turn, seen(15, nearly), CAMERA.focal, CONFIG)
    off, turned = errors(placed.pose, nearly)
    assert off < 0.03
    assert turned < 0.3


def test_without_landmarks_the_length_is_a_guess_and_says_so():
    placed = place(scene(), true_relative(), seen(0), CAMERA.focal, CONFIG)
    assert not placed.scaled
    assert np.linalg.norm(placed.pose[:3, 3]) == pytest.approx(1.0)
    assert errors(placed.pose)[1] < 1e-6


@pytest.mark.parametrize(("query", "factor"), [(4, 1 / 3), (9, 2.0), (1000, 1.0)])
def test_without_landmarks_the_speed_of_the_last_step_is_kept(query, factor):
    """Not its length: keyframes lie further apart than frames. Of a loop, time says nothing."""
    first, last = FrameId(0, 0), FrameId(3, 3 * 10**8)
    walked = Scene(poses={first: np.eye(4), last: pose_of(np.eye(3), np.array([0.0, 0, 0.6]))})
    walked.edges.append(Edge(first, last))
    following = FrameId(query, query * 10**8)
    relative = dataclasses.replace(true_relative(), reference=last, query=following)
    placed = place(walked, relative, seen(0), CAMERA.focal, CONFIG)
    step = np.linalg.norm(placed.pose[:3, 3] - walked.poses[last][:3, 3])
    assert step == pytest.approx(0.6 * factor)


def test_landmarks_that_agree_on_no_length_do_not_decide_it():
    view = seen(12)
    view.rays[:] = np.random.default_rng(3).uniform(-0.4, 0.4, (12, 2))
    placed = place(scene(), true_relative(), view, CAMERA.focal, CONFIG)
    assert not placed.scaled
    assert np.linalg.norm(placed.pose[:3, 3]) == pytest.approx(1.0)


def test_a_rejected_pair_without_landmarks_has_no_place():
    rejected = step(np.eye(3), np.zeros(3), PoseStatus.REJECTED)
    assert place(scene(), rejected, seen(3), CAMERA.focal, CONFIG) is None


@pytest.mark.parametrize("baseline", [0.05, 0.5])
def test_the_certainty_of_a_position_is_that_of_stereo(baseline):
    """Two parallel cameras: depth is certain to sqrt(2) z^2 sigma / b, the sides to z sigma."""
    pair = scene()
    pair.poses[QUERY] = pose_of(np.eye(3), np.array([baseline, 0.0, 0.0]))
    point = np.array([baseline / 2, 0.0, 5.0])
    for frame, pose in pair.poses.items():
        local = in_camera(pose, point[None])[0]
        pair.observe(frame, 7, Observation(local[:2] / local[2], SIGMA))
    pair.landmarks[7] = point
    deviation = np.sqrt(np.diagonal(position_covariance(pair, [7])[0]))
    assert deviation[2] == pytest.approx(np.sqrt(2) * 25 * SIGMA / baseline, rel=0.01)
    assert deviation[1] == pytest.approx(5 * SIGMA / np.sqrt(2), rel=0.01)


def test_the_scale_of_a_loop_knows_how_certain_it_is():
    rng = np.random.default_rng(0)
    old = rng.uniform([-1, -1, 4], [1, 1, 7], (40, 3))
    for count, spread in ((40, 0.05), (40, 0.2), (10, 0.2)):
        world = scene()
        merged = {}
        for k in range(count):
            world.landmarks[k] = old[k]
            world.landmarks[100 + k] = old[k] / 1.3 * np.exp(spread * rng.normal())
            merged[100 + k] = k
        scale = loops.scale_of(world, REFERENCE, np.eye(4), merged)
        expected = max(1.2533 * spread / np.sqrt(count), 0.02)
        assert scale.log_sigma == pytest.approx(expected, rel=0.5)
        assert abs(np.log(scale.factor / 1.3)) < 4 * expected
    assert loops.scale_of(world, REFERENCE, np.eye(4), {100: 0}).log_sigma > 1
