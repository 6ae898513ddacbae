"""What every front-end promises."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.frontends.base import FrontEnd, make_front_end
from superglue_ros.registry import FRONT_ENDS
from superglue_ros.types import Features

from .conftest import CPU, made_or_skipped

LIMIT = 150


@pytest.fixture(scope="module", params=list(FRONT_ENDS))
def front_end(request: pytest.FixtureRequest) -> FrontEnd:
    config = Config(front_end=FrontEndConfig(name=request.param, max_keypoints=LIMIT))
    return made_or_skipped(make_front_end, config)


def assert_well_formed(features: Features, image: np.ndarray, front_end: FrontEnd) -> None:
    height, width = image.shape
    assert (features.width, features.height) == (width, height)
    assert features.detector == front_end.detector
    assert features.descriptors.shape == (len(features), front_end.descriptor_dim)
    for values in (features.keypoints, features.scores, features.descriptors):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert (features.scores >= 0).all()
    assert (features.scores <= 1).all()


def test_finds_the_best_keypoints_inside_the_image(front_end, photograph):
    features = front_end.extract(photograph)
    assert_well_formed(features, photograph, front_end)
    assert 50 < len(features) <= LIMIT
    assert (np.diff(features.scores) <= 0).all()
    assert np.ptp(features.keypoints, axis=0).min() > 100


def test_is_deterministic(front_end, photograph):
    first, second = front_end.extract(photograph), front_end.extract(photograph)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    np.testing.assert_array_equal(first.descriptors, second.descriptors)


def test_images_together_give_what_they_give_alone(front_end, photograph, warped):
    images = [photograph, warped[0], photograph[:120, :200], np.zeros((30, 40), np.uint8)]
    together = front_end.extract_all(images)
    assert front_end.extract_all([]) == []
    for image, found in zip(images, together, strict=True):
        alone = front_end.extract(image)
        assert_well_formed(found, image, front_end)
        np.testing.assert_allclose(found.keypoints, alone.keypoints, atol=1e-4)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
        np.testing.assert_allclose(found.descriptors, alone.descriptors, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 24), (61, 83)])
def test_any_size_and_an_image_without_texture(front_end, size):
    image = np.full(size, 128, np.uint8)
    features = front_end.extract(image)
    assert_well_formed(features, image, front_end)


def test_keypoints_follow_a_known_homography(front_end, photograph, warped):
    """A third of the keypoints and more are found again within 3 px where both images see them."""
    image, homography = warped
    points = front_end.extract(photograph).keypoints
    moved = cv2.perspectiveTransform(points[None].astype(np.float64), homography)[0]
    height, width = photograph.shape
    visible = ((moved >= 8) & (moved < [width - 8, height - 8])).all(axis=1)
    again = front_end.extract(image).keypoints
    distance = np.linalg.norm(moved[visible][:, None] - again[None], axis=2).min(axis=1)
    assert (distance < 3).mean() > 1 / 3


def test_describes_given_pixels_in_their_order(front_end, photograph):
    points = np.array([[100.25, 90.5], [60.0, 70.0], [180.75, 120.0]], np.float32)
    features = front_end.describe(photograph, points)
    assert_well_formed(features, photograph, front_end)
    np.testing.assert_array_equal(features.keypoints, points)
    swapped = front_end.describe(photograph, points[::-1].copy())
    np.testing.assert_allclose(swapped.descriptors[::-1], features.descriptors, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_describes_no_and_one_pixel(front_end, photograph, count):
    points = np.full((count, 2), 80, np.float32)
    features = front_end.describe(photograph, points)
    assert_well_formed(features, photograph, front_end)
    assert len(features) == count


def test_says_whether_its_keypoints_are_exact(front_end):
    assert front_end.exact is (front_end.detector in ("sift-root", "aliked"))


def test_takes_other_settings(photograph, front_end, request):
    usual = FrontEndConfig(name=request.node.callspec.params["front_end"], max_keypoints=LIMIT)
    many = front_end.extract(photograph)
    front_end.configure(dataclasses.replace(usual, max_keypoints=20))
    few = front_end.extract(photograph)
    front_end.configure(usual)
    assert 15 <= len(few) <= 20
    assert few.scores.min() <= many.scores[19] + 1e-6
    np.testing.assert_array_equal(front_end.extract(photograph).keypoints, many.keypoints)


def test_keypoints_are_pixels_of_the_original_image(front_end, photograph, request):
    """Shrinking for the network does not move the keypoints."""
    large = cv2.resize(photograph, None, None, 3, 3, cv2.INTER_CUBIC)
    height, width = photograph.shape
    config = Config(
        front_end=FrontEndConfig(
            name=request.node.callspec.params["front_end"],
            max_keypoints=LIMIT,
            max_size=width,
        )
    )
    small = front_end.extract(photograph).keypoints
    found = make_front_end(config, CPU).extract(large).keypoints
    expected = (small + 0.5) * 3 - 0.5
    distance = np.linalg.norm(found[:, None] - expected[None], axis=2).min(axis=1)
    assert np.median(distance) < 1.5
