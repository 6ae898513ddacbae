"""The classical filters on descriptors whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.types import Features

# Unit vectors in a plane, named by their angle in degrees; the distance of two is 2 sin(angle / 2).
REFERENCE = [0.0, 10.0, 60.0, 100.0]
QUERY = [2.0, 62.0, 70.0, 200.0]
# Nearest: 0 -> 2 (2 deg), 10 -> 2 (8 deg), 60 -> 62 (2 deg), 100 -> 70 (30 deg).


def features(angles: list[float]) -> Features:
    radians = np.deg2rad(angles)
    return Features(
        keypoints=np.zeros((len(angles), 2), np.float32),
        scores=np.ones(len(angles), np.float32),
        width=4,
        height=4,
        detector="angles",
        descriptors=np.stack([np.cos(radians), np.sin(radians)], axis=1),
    )


def matched(name: str, **settings: float) -> set[tuple[int, int]]:
    config = Config(matcher=MatcherConfig(name=name, **settings))
    matcher = make_matcher(config, torch.device("cpu"))
    found = match_pair(matcher, features(REFERENCE), features(QUERY))
    return set(zip(found.index_ref.tolist(), found.index_query.tolist(), strict=True))


def test_every_reference_keypoint_has_its_nearest_in_the_papers_baseline():
    assert matched("paper-nn") == {(0, 0), (1, 0), (2, 1), (3, 2)}


def test_of_several_that_share_one_the_closest_keeps_it():
    assert matched("nn") == {(0, 0), (2, 1), (3, 2)}


def test_mutual_wants_both_directions():
    # The nearest of 70 is 60, which prefers 62.
    assert matched("mutual") == {(0, 0), (2, 1)}


def chord(degrees: float) -> float:
    return 2 * np.sin(np.deg2rad(degrees) / 2)


@pytest.mark.parametrize(
    ("ratio", "one_way", "both_ways"),
    [
        # Reference to query: 2 of 62, 8 of 52, 2 of 10, 30 of 38 degrees.
        (1.0, {(0, 0), (1, 0), (2, 1), (3, 2)}, {(0, 0), (2, 1)}),
        (chord(30) / chord(38) + 1e-3, {(0, 0), (1, 0), (2, 1), (3, 2)}, {(0, 0), (2, 1)}),
        (chord(30) / chord(38) - 1e-3, {(0, 0), (1, 0), (2, 1)}, {(0, 0), (2, 1)}),
        # Query to reference: 2 of 8 and 2 of 38 degrees.
        (chord(2) / chord(8) + 1e-3, {(0, 0), (1, 0), (2, 1)}, {(0, 0), (2, 1)}),
        (chord(2) / chord(8) - 1e-3, {(0, 0), (1, 0), (2, 1)}, {(2, 1)}),
        (chord(2) / chord(10) - 1e-3, {(0, 0), (1, 0)}, set()),
        (chord(2) / chord(62) - 1e-3, set(), set()),
    ],
)
def test_the_ratio_is_tested_one_way_in_the_papers_baseline_and_both_ways_in_ours(
    ratio, one_way, both_ways
):
    assert matched("paper-ratio", ratio=ratio) == one_way
    assert matched("ratio", ratio=ratio) == both_ways


def test_distance_lets_through_what_is_nearer():
    assert matched("distance", max_distance=chord(2) + 1e-3) == {(0, 0), (2, 1)}
    assert matched("distance", max_distance=chord(2) - 1e-3) == set()


def test_confidence_falls_with_distance():
    matcher = make_matcher(Config(matcher=MatcherConfig(name="paper-nn")), torch.device("cpu"))
    found = match_pair(matcher, features(REFERENCE), features(QUERY))
    expected = sorted((1 - chord(d) / 2 for d in (2, 8, 2, 30)), reverse=True)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
