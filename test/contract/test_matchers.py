"""What every matcher promises."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from superglue_ros.config import Config, FrontEndConfig, MatcherConfig
from superglue_ros.errors import DescriptorKindError, FeaturesError
from superglue_ros.frontends.base import make_front_end
from superglue_ros.matchers.base import Matcher, make_matcher, match_pair
from superglue_ros.registry import MATCHERS
from superglue_ros.types import Correspondences, Features

from .conftest import made_or_skipped

# A front-end for those that do not take SuperPoint's features.
FRONT_END_OF = {"lightglue": "aliked"}
# One-sided by definition, or not symmetric: LightGlue stops and prunes by what it has seen so far,
# GMS looks at the grid of the reference, filters judge one-sided nearest neighbours.
ONE_SIDED = {"nn", "paper-nn", "paper-ratio", "lightglue", "gms", "pointcn", "oanet"}


@pytest.fixture(scope="module", params=[*MATCHERS, "superglue, verification"])
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def name(variant) -> str:
    return variant.removesuffix(", verification")


@pytest.fixture(scope="module")
def config(variant, name) -> Config:
    front_end = FrontEndConfig(name=FRONT_END_OF.get(name, "superpoint"), max_keypoints=200)
    return Config(
        front_end=front_end, matcher=MatcherConfig(name=name, verification=variant != name)
    )


@functools.lru_cache
def features_of(front_end: FrontEndConfig, image: bytes, shape: tuple[int, int]) -> Features:
    """Features of an image; once for all matchers of that front-end."""
    made = made_or_skipped(make_front_end, Config(front_end=front_end))
    return made.extract(np.frombuffer(image, np.uint8).reshape(shape))


@pytest.fixture(scope="module")
def features(config, photograph) -> Features:
    return features_of(config.front_end, photograph.tobytes(), photograph.shape)


@pytest.fixture(scope="module")
def moved(config, warped) -> Features:
    return features_of(config.front_end, warped[0].tobytes(), warped[0].shape)


@pytest.fixture(scope="module")
def matcher(config) -> Matcher:
    return made_or_skipped(make_matcher, config)


def pairs(correspondences) -> set[tuple[int, int]]:
    return set(
        zip(correspondences.index_ref.tolist(), correspondences.index_query.tolist(), strict=True)
    )


def assert_well_formed(found, reference: Features, query: Features, name: str) -> None:
    assert found.index_ref.dtype == found.index_query.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert len(found.index_ref) == len(found.index_query) == len(found.scores)
    for indices, size in ((found.index_ref, len(reference)), (found.index_query, len(query))):
        if MATCHERS[name].one_to_one or indices is found.index_ref:
            assert len(np.unique(indices)) == len(indices)
        assert not len(indices) or (indices.min() >= 0 and indices.max() < size)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()


def test_finds_the_known_homography(matcher, features, moved, warped, name):
    found = match_pair(matcher, features, moved)
    assert_well_formed(found, features, moved, name)
    expected = cv2.perspectiveTransform(
        features.keypoints[None, found.index_ref].astype(np.float64), warped[1]
    )[0]
    error = np.linalg.norm(expected - moved.keypoints[found.index_query], axis=1)
    assert len(found) >= 25
    assert (error < 3).mean() > 0.5


def test_an_image_matches_itself(matcher, features):
    found = match_pair(matcher, features, features)
    assert len(found) > 0.8 * len(features)
    assert (found.index_ref == found.index_query).mean() > 0.95


@pytest.mark.parametrize(("count0", "count1"), [(0, 0), (0, 80), (80, 0), (1, 1), (1, 80), (80, 1)])
def test_no_and_one_keypoint(matcher, features, moved, count0, count1, name):
    reference, query = features.select(np.arange(count0)), moved.select(np.arange(count1))
    found = match_pair(matcher, reference, query)
    assert_well_formed(found, reference, query, name)
    assert len(found) <= (min(count0, count1) if MATCHERS[name].one_to_one else count0)


def test_does_not_depend_on_the_order_of_the_keypoints(matcher, features, moved):
    rng = np.random.default_rng(0)
    order0, order1 = rng.permutation(len(features)), rng.permutation(len(moved))
    found = match_pair(matcher, features.select(order0), moved.select(order1))
    expected = match_pair(matcher, features, moved)
    assert {(order0[i], order1[j]) for i, j in pairs(found)} == pairs(expected)


def test_swapping_the_images_swaps_the_matches(matcher, features, moved, name, variant):
    if name in ONE_SIDED:
        pytest.skip(f"{name} is one-sided")
    forward = match_pair(matcher, features, moved)
    backward = match_pair(matcher, moved, features)
    there, back = pairs(forward), {(j, i) for i, j in pairs(backward)}
    if variant == name:
        assert there == back
        return
    # The network's probabilities differ by up to a hundredth, so that votes do too, and with them
    # what is just above the threshold.
    assert pairs(sure(forward)) <= back
    assert {(j, i) for i, j in pairs(sure(backward))} <= there
    assert len(there ^ back) <= 0.02 * len(there)


def sure(found: Correspondences) -> Correspondences:
    """Those with a confidence of a tenth above the threshold."""
    keep = found.scores > MatcherConfig().threshold + 0.1
    return Correspondences(found.index_ref[keep], found.index_query[keep], found.scores[keep])


def test_a_batch_gives_what_its_pairs_give(matcher, features, moved):
    references = [features, moved, features.select(np.arange(40)), features.select(np.arange(0))]
    queries = [matcher.prepare(moved)] * len(references)
    batch = matcher.match_pairs([matcher.prepare(r) for r in references], queries)
    for reference, found in zip(references, batch, strict=True):
        alone = match_pair(matcher, reference, moved)
        assert pairs(found) == pairs(alone)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)


def test_pairs_of_a_batch_may_have_a_query_each(matcher, features, moved):
    nothing, few = features.select(np.arange(0)), features.select(np.arange(40))
    references = [features, few, moved, nothing, features]
    queries = [moved, features, few, moved, nothing]
    batch = matcher.match_pairs(
        [matcher.prepare(r) for r in references], [matcher.prepare(q) for q in queries]
    )
    for reference, query, found in zip(references, queries, batch, strict=True):
        alone = match_pair(matcher, reference, query)
        assert pairs(found) == pairs(alone)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)


def test_refuses_descriptors_of_another_kind(matcher, features):
    other = Features(
        features.keypoints,
        features.scores,
        features.width,
        features.height,
        "other",
        features.descriptors[:, :64],
    )
    with pytest.raises(DescriptorKindError, match="other"):
        match_pair(matcher, other, features)


def test_refuses_features_without_descriptors(matcher, features):
    bare = Features(
        features.keypoints, features.scores, features.width, features.height, features.detector
    )
    with pytest.raises(FeaturesError, match="no descriptors"):
        matcher.prepare(bare)
