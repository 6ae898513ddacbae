"""What passes between the stages."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.errors import FeaturesError, IdentifierError
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.types import MAX_ID, Features, FrameId, known_depth


def features(scores: np.ndarray) -> Features:
    """Keypoints in a row, each with its number as descriptor."""
    count = len(scores)
    numbers = np.arange(count, dtype=np.float32)
    return Features(
        keypoints=np.column_stack([numbers, numbers]),
        scores=scores,
        width=50,
        height=50,
        detector="numbers",
        descriptors=numbers[:, None],
        track_ids=np.arange(count) + 100,
    )


@given(hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(0, 1, width=32)))
@settings(deadline=None)
def test_the_best_features_are_kept_in_their_order(scores: np.ndarray) -> None:
    best, places = features(scores).best(10)
    assert len(best) == min(len(scores), 10)
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(best.scores, scores[places])
    np.testing.assert_array_equal(best.descriptors[:, 0], places)
    np.testing.assert_array_equal(best.track_ids, places + 100)
    left_out = np.delete(scores, places)
    assert not len(left_out) or left_out.max() <= best.scores.min()


def test_depth_goes_with_the_best_features_of_a_frame() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.7], np.float32)
    depth = np.array([1, 2, 3, 4], np.float32)
    frame = Keyframe(
        id=FrameId(1),
        features=features(scores),
        prepared="old",
        depth=depth,
        depth_sigma=depth / 10,
    )
    best, places = frame.best(2)
    np.testing.assert_array_equal(places, [1, 3])
    np.testing.assert_array_equal(best.depth, [2, 4])
    np.testing.assert_allclose(best.depth_sigma, [0.2, 0.4])
    assert best.prepared is None


@pytest.mark.parametrize("name", ["keypoints", "scores", "descriptors"])
def test_what_is_not_finite_is_refused_with_a_count(name: str) -> None:
    good = features(np.linspace(0, 1, 5, dtype=np.float32))
    values = getattr(good, name).copy()
    values.flat[3] = np.nan
    with pytest.raises(FeaturesError, match=f"{name} of 1 of 5 keypoints are NaN"):
        dataclasses.replace(good, **{name: values})


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_a_standard_deviation_is_positive_and_finite(value: float) -> None:
    good = features(np.linspace(0, 1, 5, dtype=np.float32))
    sigma = np.ones(5, np.float32)
    sigma[2] = value
    with pytest.raises(FeaturesError, match="sigma_px of 1 of 5"):
        dataclasses.replace(good, sigma_px=sigma)


@pytest.mark.parametrize("track", [-2, MAX_ID, 2**63 - 1])
def test_landmarks_that_counting_could_not_go_on_from_are_refused(track: int) -> None:
    good = features(np.linspace(0, 1, 5, dtype=np.float32))
    tracks = np.array([0, 1, track, 3, 4], np.int64)
    with pytest.raises(FeaturesError, match="track_ids span"):
        dataclasses.replace(good, track_ids=tracks)


@pytest.mark.parametrize(
    "values",
    [
        {"id": 1.5}, {"id": -5}, {"id": 2**64 - 1}, {"id": True}, {"id": "1"},
        {"frame_id": 5}, {"frame_id": "x" * 257}, {"robot": None}, {"robot": "x" * 10**6},
        {"stamp_ns": 2**63}, {"stamp_ns": 0.5}, {"camera_index": -1}, {"camera_index": 2**16},
    ],
)  # fmt: skip
def test_a_frame_has_a_name_that_messages_can_carry(values: dict[str, Any]) -> None:
    with pytest.raises(IdentifierError, match=next(iter(values))) as caught:
        FrameId(**{"id": 1, **values})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e30])
def test_a_keyframe_has_depths_that_are_distances(value: float) -> None:
    depth = np.array([1, 2, value, 4, 5], np.float32)
    good = features(np.linspace(0, 1, 5, dtype=np.float32))
    for name in ("depth", "depth_sigma"):
        with pytest.raises(FeaturesError, match=name):
            Keyframe(id=FrameId(1), features=good, prepared=None, **{name: depth})
    np.testing.assert_array_equal(known_depth(depth), [1, 2, 0, 4, 5])
