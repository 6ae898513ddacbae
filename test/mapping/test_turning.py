"""A rolling shutter in the pipeline: how fast the camera turns, and pixels without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.geometry.angle_errors import direction_error_deg, rotation_error_deg
from superglue_ros.geometry.rotation import exp
from superglue_ros.mapping.turning import Turning
from superglue_ros.mapping.verification import FramePair
from superglue_ros.pipeline import FrameResult, Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import Frame, FrameId, PoseStatus

from ..landmark_world import LandmarkWorld, heading
from ..pair_results import matches, pose

INTERVAL_S = 0.1  # of the world's frames
READOUT_S = 0.03
FRAMES = 24


def angle_deg(seconds: float) -> float:
    """A look around, to and fro; up to 60 degrees a second."""
    return 30 * float(np.sin(2 * seconds))


def place(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position of a camera on a circle of 1 m."""
    rotation = heading(angle_deg(number * INTERVAL_S))
    return rotation, rotation @ [0, 0, 1.0] + [0, 0.3 * np.sin(number / 4), 0]


def rate(number: int) -> float:
    """Angular velocity to the right, rad/s."""
    around = [np.deg2rad(angle_deg(number * INTERVAL_S + step)) for step in (-1e-4, 1e-4)]
    return (around[1] - around[0]) / 2e-4


def recorded(readout_s: float) -> Iterator[Frame]:
    world = LandmarkWorld(noise_px=0.2)
    for number in range(FRAMES):
        turning = (0.0, rate(number), 0.0)
        frame, _ = world.frame(number, *place(number), turning=turning, readout_s=readout_s)
        yield frame


def processed(frames: Iterator[Frame], readout_s: float) -> list[FrameResult]:
    names = {
        "device": "cpu",
        "front_end.name": "sift",
        "matcher.name": "ratio",
        "geometry.readout_s": readout_s,
        "keyframes.loop_candidates": 0,
    }
    pipeline = Pipeline(from_flat(Config, names))
    return [pipeline.process(frame) for frame in frames]


def errors_deg(results: list[FrameResult]) -> np.ndarray:
    """Median errors of rotation and direction over all pairs."""
    errors = []
    for pair in (pair for result in results for pair in result.pairs):
        assert pair.pose.status is PoseStatus.VALID
        (turn, at), (before_turn, before) = (
            place(pair.matches.query.id),
            place(pair.matches.reference.id),
        )
        errors.append(
            (
                rotation_error_deg(pair.pose.rotation, before_turn.T @ turn),
                direction_error_deg(pair.pose.translation, before_turn.T @ (at - before)),
            )
        )
    return np.median(errors, axis=0)


@pytest.mark.parametrize("readout_s", [READOUT_S, -READOUT_S])
def test_poses_of_a_rolling_shutter(readout_s: float) -> None:
    without = errors_deg(processed(recorded(readout_s), 0.0))
    corrected = errors_deg(processed(recorded(readout_s), readout_s))
    exact = errors_deg(processed(recorded(0.0), 0.0))
    assert corrected[1] < 0.25 * without[1]  # direction; the rotations of two frames cancel
    assert corrected[0] < without[0]
    assert (corrected < 3 * exact).all()


def test_matches_have_the_pixels_of_a_global_shutter() -> None:
    """Against those of the same points seen at once, with as much noise."""
    at_once = LandmarkWorld(noise_px=0.2)
    true = []
    for number in range(FRAMES):
        features = at_once.frame(number, *place(number))[0].keypoints
        true.append(dict(zip(map(bytes, features.descriptors), features.keypoints, strict=True)))

    def median_error(readout_s: float) -> float:
        errors = []
        results = processed(recorded(READOUT_S), readout_s)
        for frame, result in zip(recorded(READOUT_S), results, strict=True):
            for pair in result.pairs:
                points = frame.keypoints.descriptors[pair.matches.index_query]
                for point, pixel in zip(points, pair.matches.points_query, strict=True):
                    if (expected := true[frame.id.id].get(bytes(point))) is not None:
                        errors.append(np.linalg.norm(pixel - expected))
        assert len(errors) > 1000
        return float(np.median(errors))

    assert median_error(0.0) > 1.2
    assert median_error(READOUT_S) < 0.6


def test_features_stay_as_they_were_found() -> None:
    for frame, result in zip(
        recorded(READOUT_S), processed(recorded(READOUT_S), READOUT_S), strict=True
    ):
        np.testing.assert_array_equal(result.features.keypoints, frame.keypoints.keypoints)


# -- how fast the camera turns ---------------------------------------------------------------------


def frame(number: int, seconds: float) -> FrameId:
    return FrameId(number, round(seconds * 1e9), "camera")


def pair(reference: FrameId, query: FrameId, turned: float, **changes) -> FramePair:
    """The query turned by so many radians to the right of the reference."""
    rotation = exp(np.array([0, turned, 0.0]))
    measured = replace(pose(reference, query), rotation=rotation, **changes)
    return FramePair(matches(reference, query), measured)


def test_a_frame_turns_as_since_the_frame_before_and_then_as_around_it() -> None:
    first, second, third, turning = frame(0, 1.0), frame(1, 1.1), frame(2, 1.3), Turning()
    assert turning.learn(first, []) is None
    assert turning.expected(second) is None
    np.testing.assert_allclose(turning.at(second, [pair(first, second, 0.02)]), [0, 0.2, 0])
    who, how = turning.learn(second, [pair(first, second, 0.02)])
    assert who == first
    np.testing.assert_allclose(how, [0, 0.2, 0])
    np.testing.assert_allclose(turning.expected(third), [0, 0.2, 0])
    seen = [pair(first, third, 0.08)]
    np.testing.assert_allclose(turning.at(third, seen), [0, 0.3, 0])
    who, how = turning.learn(third, seen)
    assert who == second
    np.testing.assert_allclose(how, [0, 0.08 / 0.3, 0])


def test_the_reference_with_the_most_inliers_counts() -> None:
    first, second, third, turning = frame(0, 1.0), frame(1, 1.1), frame(2, 1.2), Turning()
    turning.learn(first, [])
    turning.learn(second, [pair(first, second, 0.02)])
    seen = [pair(first, third, 0.9, num_inliers=20), pair(second, third, 0.03, num_inliers=90)]
    np.testing.assert_allclose(turning.at(third, seen), [0, 0.3, 0])


def test_what_is_not_known_is_not_guessed() -> None:
    first, second, turning = frame(0, 1.0), frame(1, 1.1), Turning()
    turning.learn(first, [])
    for seen in (
        [],
        [pair(frame(7, 0.9), second, 0.02)],  # not seen by the frame before
        [pair(first, second, 0.02, status=PoseStatus.REJECTED)],
        [replace(pair(first, second, 0.02), calibrated=False)],
    ):
        assert turning.at(second, seen) is None
    late = frame(1, 1.6)
    assert turning.at(late, [pair(first, late, 0.02)]) is None
    turning.learn(second, [pair(first, second, 0.02)])
    assert turning.expected(frame(2, 1.7)) is None
    turning.forget()
    assert turning.expected(frame(2, 1.2)) is None
