"""What passes between the stages."""

from __future__ import annotations

import dataclasses

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.errors import FeaturesError
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.types import Features, FrameId


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
