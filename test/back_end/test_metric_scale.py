"""The scale of a young map, from metric relative poses that begin a few millimetres long."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.back_end.metric_scale import MetricScale
from superglue_ros.back_end.scene import Edge, Scene, inverse, pose_of
from superglue_ros.types import FrameId

LENGTHS_M = [0.0, 0.008, 0.02, 0.05, 0.1, 0.2, 0.4]
SIGMA_M = 0.01
TOO_SMALL = 0.6  # the map's scale, from the first pair


def young_map(frames: int, seed: int = 0) -> Scene:
    """A camera that sets off, with metric poses to its first frame; the map is too small."""
    rng = np.random.default_rng(seed)
    scene = Scene()
    origin = FrameId(0, 0)
    for number, length in enumerate(LENGTHS_M[:frames]):
        frame = FrameId(number, number)
        true = pose_of(np.eye(3), np.array([0, 0, length]))
        scene.poses[frame] = pose_of(np.eye(3), TOO_SMALL * true[:3, 3])
        if number:
            measured = pose_of(np.eye(3), true[:3, 3] + rng.normal(0, SIGMA_M, 3))
            edge = Edge(origin, frame, metric=measured, covariance=SIGMA_M**2 * np.eye(6))
            scene.edges.append(edge)
    scene.landmarks[7] = np.array([0, 0, TOO_SMALL * 3.0])
    return scene


def scale(scene: Scene) -> float:
    """1 = right."""
    return float(scene.landmarks[7][2] / 3)


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_metric_poses_give_the_scale(seed: int) -> None:
    scene = young_map(len(LENGTHS_M), seed)
    MetricScale().update(scene)
    assert scale(scene) == pytest.approx(1, abs=0.08)
    last = scene.poses[FrameId(6, 6)]
    assert np.linalg.norm(last[:3, 3]) == pytest.approx(0.4 * scale(scene))


def test_poses_shorter_than_their_error_say_nothing() -> None:
    scene = young_map(3)
    scene.edges = scene.edges[:1]
    MetricScale().update(scene)
    assert scale(scene) == pytest.approx(TOO_SMALL)


def test_a_scale_that_is_known_stays() -> None:
    scene, keeper = young_map(len(LENGTHS_M)), MetricScale()
    long = pose_of(np.eye(3), np.array([0, 0, 2.0]))
    scene.poses[FrameId(9, 9)] = pose_of(np.eye(3), TOO_SMALL * long[:3, 3])
    exact = 1e-4 * np.eye(6)
    scene.edges.append(Edge(FrameId(0, 0), FrameId(9, 9), metric=long, covariance=exact))
    keeper.update(scene)
    assert scale(scene) == pytest.approx(1, abs=1e-9)
    wrong = inverse(pose_of(np.eye(3), np.array([0, 0, 5.0])))
    scene.edges.append(Edge(FrameId(9, 9), FrameId(0, 0), metric=wrong, covariance=exact / 100))
    keeper.update(scene)
    assert scale(scene) == pytest.approx(1, abs=1e-9)


def test_without_metric_poses_the_map_keeps_its_scale() -> None:
    scene = young_map(len(LENGTHS_M))
    scene.edges = [Edge(edge.reference, edge.query) for edge in scene.edges]
    MetricScale().update(scene)
    assert scale(scene) == pytest.approx(TOO_SMALL)
