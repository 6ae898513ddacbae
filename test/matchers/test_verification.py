"""SuperGlue's matches with verification against those without, on real photographs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.data.image import to_grey
from superglue_ros.frontends.base import make_front_end
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.matchers.verification import (
    FITTED,
    Candidates,
    VerifiedMatcher,
    global_evidence,
    local_evidence,
    verified,
)
from superglue_ros.types import Correspondences, Features

CPU = torch.device("cpu")
CONFIG = Config(precision="float32", matcher=MatcherConfig(weights="small", verification=True))
PLAIN = replace(CONFIG, matcher=replace(CONFIG.matcher, verification=False))


@pytest.fixture(scope="module")
def pair() -> tuple[Features, Features, np.ndarray]:
    """Features of a photograph and of a view of it at two thirds, turned; the homography."""
    first = cv2.resize(to_grey(skimage.data.coffee()[..., ::-1]), (480, 320))
    scale, angle = 0.66, np.deg2rad(25)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    homography = np.array([[cos, -sin, 120], [sin, cos, 10], [5e-4, 2e-4, 1.0]])
    second = cv2.warpPerspective(first, homography, (480, 320))
    front_end = make_front_end(CONFIG, CPU)
    return front_end.extract(first), front_end.extract(second), homography


@pytest.fixture(scope="module")
def matcher() -> VerifiedMatcher:
    return make_matcher(CONFIG, CPU)


def right(pair, found: Correspondences) -> np.ndarray:
    first, second, homography = pair
    points = first.keypoints[None, found.index_ref].astype(np.float64)
    off = cv2.perspectiveTransform(points, homography)[0] - second.keypoints[found.index_query]
    return np.linalg.norm(off, axis=1) < 4


def test_more_right_matches_and_no_more_wrong_ones(matcher, pair):
    plain = right(pair, match_pair(make_matcher(PLAIN, CPU), *pair[:2]))
    found = right(pair, match_pair(matcher, *pair[:2]))
    assert plain.sum() > 40
    assert found.sum() > 1.05 * plain.sum()
    assert found.mean() > plain.mean() - 0.02


def test_the_threshold_takes_effect_with_the_next_match(pair):
    matcher = make_matcher(CONFIG, CPU)
    found = match_pair(matcher, *pair[:2])
    matcher.configure(replace(CONFIG.matcher, threshold=0.8))
    fewer = match_pair(matcher, *pair[:2])
    np.testing.assert_array_equal(fewer.scores, found.scores[found.scores > 0.8])
    assert 0 < len(fewer) < len(found)


def test_candidates_are_the_networks_and_the_nearest_neighbours(matcher, pair):
    first, second = (matcher.prepare(one) for one in pair[:2])
    (candidates,) = matcher.candidates([first], [second])
    pairs = list(zip(candidates.index_ref, candidates.index_query, strict=True))
    assert len(set(pairs)) == len(pairs)
    own = match_pair(
        make_matcher(replace(PLAIN, matcher=replace(PLAIN.matcher, threshold=0.0)), CPU), *pair[:2]
    )
    nearest = match_pair(make_matcher(Config(matcher=MatcherConfig(name="mutual")), CPU), *pair[:2])
    known = ~np.isnan(candidates.probability)
    np.testing.assert_array_equal(candidates.index_ref[known], own.index_ref)
    np.testing.assert_array_equal(candidates.probability[known], own.scores)
    assert set(pairs) == {
        (i, j)
        for one in (own, nearest)
        for i, j in zip(one.index_ref, one.index_query, strict=True)
    }
    assert 0 < (~known).sum() < len(nearest)


def test_pixels_are_those_of_an_image_of_640(matcher, pair):
    """So that an image enlarged with its keypoints has the same matches."""
    larger = [
        replace(one, keypoints=one.keypoints * 3, width=one.width * 3, height=one.height * 3)
        for one in pair[:2]
    ]
    found, again = match_pair(matcher, *pair[:2]), match_pair(matcher, *larger)
    shared = np.intersect1d(found.index_ref, again.index_ref)
    assert len(shared) > 0.97 * max(len(found), len(again))


def test_evidence_of_nothing_and_of_one():
    none = np.zeros(0)
    nothing = Candidates(
        none.astype(np.int32), none.astype(np.int32), np.zeros((0, 2)), np.zeros((0, 2)), none
    )
    assert local_evidence(nothing, FITTED.own).shape == (0, 4)
    assert verified(nothing).shape == (0,)
    index = np.zeros(1, np.int32)
    one = Candidates(index, index, np.ones((1, 2)), np.ones((1, 2)), np.array([0.5]))
    evidence = local_evidence(one, FITTED.own)
    np.testing.assert_array_equal(evidence, [[0, 0, 0, 0]])
    assert global_evidence(one, evidence, FITTED.local) is None
    np.testing.assert_array_equal(verified(one), FITTED.local[-1:])
    unknown = replace(one, probability=np.array([np.nan]))
    np.testing.assert_array_equal(local_evidence(unknown, FITTED.own), [[0, 1, 0, 0]])


def test_the_motion_of_the_image_tells_right_from_wrong(matcher, pair):
    """The photograph is a plane; so what lies elsewhere is wrong, whatever its neighbours do."""
    first, second = (matcher.prepare(one) for one in pair[:2])
    (candidates,) = matcher.candidates([first], [second])
    evidence = local_evidence(candidates, FITTED.own)
    everything = global_evidence(candidates, evidence, FITTED.local)
    assert everything is not None
    np.testing.assert_array_equal(everything[:, :4], evidence)
    planar = everything[:, 5] / everything[:, 6]
    found = Correspondences(candidates.index_ref, candidates.index_query, np.zeros(len(evidence)))
    is_right = right(pair, found)
    assert planar[is_right].mean() > 0.5  # 4 px in the smaller image are 6 in the other
    assert planar[~is_right].mean() < 0.1
    odds = verified(candidates)
    assert (odds[is_right] > 0).mean() > 0.8
    assert (odds[~is_right] < 0).mean() > 0.9
