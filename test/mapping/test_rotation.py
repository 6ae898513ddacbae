"""Images turned in their plane are matched, by indices of the upright features."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from superglue_ros.config import Config
from superglue_ros.data.image import Resized
from superglue_ros.evaluation.pairs.methods import Method, MethodSpec
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.mapping.refinement import refined
from superglue_ros.mapping.rotation import turned, turned_points
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import Frame, FrameId

SETTINGS = {"device": "cpu", "front_end.max_keypoints": 200, "matcher.sinkhorn_iterations": 30}


@pytest.fixture(scope="module")
def photograph():
    grey = cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(grey[40:280, 100:420])


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_points_turn_with_their_image(turns):
    image = np.zeros((5, 8), np.uint8)
    image[1, 6] = 255
    points = turned_points(np.array([[6.0, 1.0]], np.float32), image.shape, turns)
    ((x, y),) = points.astype(int)
    rotated = turned(image, turns)
    assert rotated[y, x] == 255
    back = turned_points(points, rotated.shape, -turns)
    np.testing.assert_array_equal(back, [[6.0, 1.0]])


@pytest.mark.parametrize("turns", [1, 2])
def test_refinement_follows_a_turn(photograph, turns):
    reference, query = photograph, turned(photograph, -turns)
    points = np.array([[120.0, 90.0], [200.0, 150.0], [160.0, 60.0]], np.float32)
    true = turned_points(points, reference.shape, -turns)
    start = true + np.array([0.8, -0.5], np.float32)
    found = refined(
        make_refiner("lk"), Resized(reference, 1, 1), Resized(query, 1, 1), points, start, turns
    )
    np.testing.assert_allclose(found.points, true, atol=0.1)


def frame(number: int, image) -> Frame:
    return Frame(FrameId(number, number * 10**8, "camera"), image)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_image_is_matched_by_the_features_of_the_upright_one(photograph, turns):
    query = turned(photograph, -turns)
    pair = Pipeline(from_flat(Config, {**SETTINGS, "front_end.rotation": "quarter"})).match_pair(
        frame(1, photograph), frame(2, query)
    )
    expected = turned_points(pair.matches.points_ref, photograph.shape, -turns)
    errors = np.linalg.norm(expected - pair.matches.points_query, axis=1)
    assert len(errors) > 100
    assert np.median(errors) < 0.4
    assert (errors < 3).mean() > 0.9


def test_half_a_turn_is_too_much_without_it(photograph):
    pair = Pipeline(from_flat(Config, SETTINGS)).match_pair(
        frame(1, photograph), frame(2, turned(photograph, 2))
    )
    assert len(pair.matches) < 30


def test_upright_images_are_left_alone(photograph):
    found = []
    for rotation in ("none", "quarter"):
        settings = from_flat(Config, {**SETTINGS, "front_end.rotation": rotation})
        pair = Pipeline(settings).match_pair(frame(1, photograph), frame(2, photograph[:, 20:]))
        found.append(pair.matches)
    np.testing.assert_array_equal(found[0].points_query, found[1].points_query)
    np.testing.assert_array_equal(found[0].index_ref, found[1].index_ref)


def test_evaluation_tries_the_turns_too(photograph):
    query = turned(photograph, 2)
    spec = MethodSpec(from_flat(Config, {**SETTINGS, "front_end.rotation": "quarter"}))
    method = Method(spec.network_alone())
    features = method.extract(photograph, ""), method.extract(query, "")
    found = method.match(*features, lambda: query)
    assert found.turns == 2
    sure = found.scores > 0.2
    expected = turned_points(
        features[0].keypoints[found.index_ref[sure]], photograph.shape, -found.turns
    )
    errors = np.linalg.norm(expected - features[1].keypoints[found.index_query[sure]], axis=1)
    # Turned back, the image is the same one, its keypoints are not: some are beside their place.
    assert (errors < 3).sum() > 100
    assert (errors < 3).mean() > 0.7
    assert errors.max() < 15
