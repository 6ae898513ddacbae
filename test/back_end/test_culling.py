"""Frames that others make superfluous leave the map, and nothing is lost but their observations."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gtsam")

from superglue_ros.back_end import loops
from superglue_ros.back_end.covisibility import keep_in_place
from superglue_ros.back_end.culling import cull
from superglue_ros.back_end.scene import Attached, Edge, Observation, Scene, inverse, pose_of
from superglue_ros.geometry.rotation import exp, log
from superglue_ros.types import FrameId

RAY = Observation(np.zeros(2), 0.001)


def frame(number: int) -> FrameId:
    return FrameId(number, stamp_ns=number)


def chain(frames: int, tracks_of) -> Scene:
    """Frames along x, each joined to the one before, with the landmarks ``tracks_of(number)``."""
    scene = Scene()
    for number in range(frames):
        scene.poses[frame(number)] = pose_of(exp(np.array([0, 0.1 * number, 0])), [number, 0, 0])
        for track in tracks_of(number):
            scene.observe(frame(number), track, RAY)
            scene.landmarks[track] = np.array([track, 0.0, 5.0])
        if number:
            scene.edges.append(Edge(frame(number - 1), frame(number)))
    return scene


def test_frames_go_until_every_landmark_is_seen_by_three():
    scene = chain(6, lambda number: range(10))
    before = scene.trajectory
    assert cull(scene, list(scene.poses), 0.9) == 3
    assert list(scene.poses) == [frame(3), frame(4), frame(5)]
    assert all(len(views) == 3 for views in scene.observations.values())
    assert len(scene.landmarks) == 10
    assert scene.tracks_of.keys() == scene.poses.keys()
    assert scene.trajectory.keys() == before.keys()
    for one, pose in before.items():
        np.testing.assert_allclose(scene.trajectory[one], pose, atol=1e-12)


@pytest.mark.parametrize(("own", "removed"), [(1, 1), (2, 0)])
def test_a_frame_stays_for_the_landmarks_that_are_its_own(own, removed):
    """Of ten landmarks of frame 2 nine or eight are seen by four others."""
    scene = chain(
        5,
        lambda number: [*range(10 - own), *(100 + i for i in range(own))][
            : 10 if number == 2 else 10 - own
        ],
    )
    assert cull(scene, [frame(2)], 0.9) == removed
    assert (frame(2) in scene.poses) is (removed == 0)


def test_the_map_does_not_grow_with_the_rounds():
    """Twenty rounds of twelve frames, each of which sees a quarter of the place."""
    scene, kept = Scene(), []
    for number in range(240):
        scene.poses[frame(number)] = np.eye(4)
        for track in range(10 * number, 10 * number + 30):
            scene.observe(frame(number), track % 120, RAY)
            scene.landmarks[track % 120] = np.zeros(3)
        if number:
            scene.edges.append(Edge(frame(number - 1), frame(number)))
        window = list(scene.poses)[-4:]
        cull(scene, keep_in_place(scene, window, 8), 0.9)
        kept.append(len(scene.poses))
    assert max(kept[60:]) <= max(kept[:60]) <= 24
    assert len(scene.edges) < 2 * max(kept)
    assert len(scene.landmarks) == 120
    assert scene.trajectory.keys() == {frame(number) for number in range(240)}


def test_what_a_frame_joined_stays_joined():
    scene = chain(5, lambda number: range(10))
    cull(scene, [frame(2)], 0.9)
    ends = {(edge.reference, edge.query) for edge in scene.edges}
    assert ends == {(frame(0), frame(1)), (frame(3), frame(4)), (frame(1), frame(3))}


def test_a_map_in_metres_stays_in_metres():
    scene = chain(5, lambda number: range(10))
    scene.edges = [measured(number, number, number + 1) for number in range(4)]
    scene.edges.append(Edge(frame(1), frame(3)))
    cull(scene, [frame(2)], 0.9)
    (around,) = [e for e in scene.edges if e.metric is not None and e.query == frame(3)]
    expected = measured(1, 1, 2).then(measured(2, 2, 3))
    assert around.reference == frame(1)
    np.testing.assert_allclose(around.metric, expected.metric, atol=1e-9)
    np.testing.assert_allclose(around.covariance, expected.covariance, rtol=1e-6)


def test_a_frame_without_edge_or_landmark_stays():
    scene = chain(5, lambda number: range(10))
    scene.edges.clear()
    scene.poses[frame(9)] = np.eye(4)
    assert cull(scene, list(scene.poses), 0.5) == 0


def test_a_culled_frame_moves_with_the_one_it_is_attached_to():
    scene = chain(6, lambda number: range(10))
    cull(scene, [frame(2), frame(1)], 0.9)  # 2 went with 1, and then both with 0
    assert {one.anchor for one in scene.attached.values()} == {frame(0)}
    steps = {n: inverse(scene.poses[frame(0)]) @ scene.trajectory[frame(n)] for n in (1, 2)}
    scene.poses[frame(0)] = pose_of(exp(np.array([0.3, 0, 0])), [4.0, 5.0, 6.0])
    for number, step in steps.items():
        expected = scene.poses[frame(0)] @ step
        np.testing.assert_allclose(scene.trajectory[frame(number)], expected, atol=1e-12)


def test_a_frame_that_is_matched_again_returns_to_its_place():
    scene = chain(6, lambda number: range(10))
    pose = scene.poses[frame(2)].copy()
    cull(scene, [frame(2)], 0.9)
    scene.revive(frame(2))
    assert list(scene.poses) == [frame(number) for number in range(6)]
    np.testing.assert_allclose(scene.poses[frame(2)], pose, atol=1e-12)
    assert not scene.attached
    assert (scene.edges[-1].reference, scene.edges[-1].query) == (frame(1), frame(2))


def test_a_loop_scales_the_steps_to_culled_frames():
    scene = chain(4, lambda number: ())
    step = pose_of(np.eye(3), [0.5, 0, 0])
    scene.attached[frame(9)] = Attached(frame(3), step)
    loops.close(
        scene, loops.Loop(frame(0), frame(3), scene.poses[frame(3)], loops.Scale(2.0, 1e-3))
    )
    assert scene.attached[frame(9)].pose[0, 3] == pytest.approx(1.0, rel=0.02)


# -- measurements in a row -------------------------------------------------------------------------


def measured(seed: int, reference: int, query: int) -> Edge:
    rng = np.random.default_rng(seed)
    root = 1e-4 * rng.standard_normal((6, 6))
    pose = pose_of(exp(rng.normal(0, 0.7, 3)), rng.normal(0, 2, 3))
    return Edge(frame(reference), frame(query), pose, root @ root.T)


def disturbed(edge: Edge, noise) -> np.ndarray:
    return pose_of(exp(noise[3:]) @ edge.metric[:3, :3], edge.metric[:3, 3] + noise[:3])


def spread(edge: Edge, samples) -> np.ndarray:
    """The covariance of poses about the edge's, in the convention of RelativePose."""
    off = [
        np.r_[pose[:3, 3] - edge.metric[:3, 3], log(pose[:3, :3] @ edge.metric[:3, :3].T)]
        for pose in samples
    ]
    return np.cov(np.array(off).T)


def test_two_measurements_in_a_row_add_up():
    rng = np.random.default_rng(5)
    first, second = measured(0, 0, 1), measured(1, 1, 2)
    both = first.then(second)
    noises = [rng.multivariate_normal(np.zeros(6), e.covariance, 3000) for e in (first, second)]
    samples = [disturbed(first, a) @ disturbed(second, b) for a, b in zip(*noises, strict=True)]
    assert (both.reference, both.query) == (frame(0), frame(2))
    largest = np.abs(both.covariance).max()
    np.testing.assert_allclose(both.covariance, spread(both, samples), atol=0.1 * largest)
    assert first.then(Edge(frame(1), frame(2))).metric is None


def test_a_measurement_seen_from_the_other_end():
    rng = np.random.default_rng(6)
    edge = measured(2, 0, 1)
    back = edge.inverse()
    noises = rng.multivariate_normal(np.zeros(6), edge.covariance, 3000)
    samples = [inverse(disturbed(edge, noise)) for noise in noises]
    assert (back.reference, back.query) == (frame(1), frame(0))
    largest = np.abs(back.covariance).max()
    np.testing.assert_allclose(back.covariance, spread(back, samples), atol=0.1 * largest)
    np.testing.assert_allclose(back.inverse().covariance, edge.covariance, atol=1e-15)
