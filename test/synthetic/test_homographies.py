from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.errors import ConfigError, DataError, ImageError
from superglue_ros.synthetic.homographies import (
    HomographyRecipe,
    _place,
    overlap,
    sample_homography,
    sample_pair,
    warp,
)

SMALL = HomographyRecipe(width=160, height=120)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without detail finer than the views' pixels, nowhere 0."""
    noise = np.random.default_rng(0).uniform(0, 1, (15, 20)).astype(np.float32)
    return (60 + 180 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)).astype(
        np.uint8
    )


@pytest.mark.parametrize("size", [(240, 320), (600, 800), (2400, 1600)])
def test_both_views_agree_under_the_homography_and_show_no_border(size):
    picture = smooth(*size)
    for seed in range(4):
        pair = sample_pair(picture, np.random.default_rng(seed), SMALL)
        assert pair.image0.shape == pair.image1.shape == (120, 160)
        assert min(pair.image0.min(), pair.image1.min()) >= 55
        ones = np.full((120, 160), 255, np.uint8)
        inside = cv2.warpPerspective(ones, pair.homography, (160, 120)) == 255
        moved = cv2.warpPerspective(pair.image0, pair.homography, (160, 120))
        difference = np.abs(moved.astype(int) - pair.image1)[inside]
        assert inside.mean() > 0.2
        assert np.median(difference) <= 2
        assert np.percentile(difference, 99) < 12


@pytest.mark.parametrize("seed", range(10))
def test_both_views_lie_inside_the_source(seed):
    rng = np.random.default_rng(seed)
    homography = sample_homography(rng, SMALL)
    source_from_0 = _place((300, 900), np.linalg.inv(homography), rng, SMALL)
    corners = np.array([[[0, 0], [159, 0], [159, 119], [0, 119]]], float)
    for source_from_view in (source_from_0, source_from_0 @ np.linalg.inv(homography)):
        seen = cv2.perspectiveTransform(corners, source_from_view)[0]
        assert (seen >= -1e-6).all()
        assert (seen <= np.array([899, 299]) + 1e-6).all()


@settings(max_examples=50)
@given(st.integers(0, 100_000))
def test_sampled_homographies_keep_to_the_recipe(seed):
    homography = sample_homography(np.random.default_rng(seed), SMALL)
    corners = np.array([[[0, 0], [159, 0], [159, 119], [0, 119]]], np.float32)
    quad = cv2.perspectiveTransform(corners, homography)[0]
    assert homography[2, 2] == 1
    assert cv2.isContourConvex(quad)
    assert overlap(quad, SMALL) >= SMALL.min_overlap - 1e-3


def test_the_same_seed_gives_the_same_pair():
    picture = smooth(300, 400)
    one, other = (sample_pair(picture, np.random.default_rng(7), SMALL) for _ in range(2))
    np.testing.assert_array_equal(one.image1, other.image1)
    np.testing.assert_array_equal(one.homography, other.homography)


def test_shrinking_warps_do_not_alias():
    # A checkerboard of single pixels has to become even grey when it is shrunk eight times.
    board = (np.indices((800, 800)).sum(0) % 2 * 255).astype(np.uint8)
    view = warp(board, np.diag([8.0, 8.0, 1.0]), (96, 96))
    assert view[8:-8, 8:-8].std() < 3


def test_bad_images_and_impossible_recipes_are_refused():
    with pytest.raises(ImageError, match="grey"):
        sample_pair(np.zeros((100, 100, 3), np.uint8), np.random.default_rng(0))
    with pytest.raises(DataError, match="overlap"):
        sample_homography(np.random.default_rng(0), replace(SMALL, min_overlap=1.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": (0, 1)}, "scale must be two positive numbers"),
        ({"scale": (1, float("inf"))}, "scale must be two positive numbers"),
        ({"perspective": -0.1}, r"perspective must be at least 0, not -0\.1"),
        ({"translation": float("nan")}, "translation must be at least 0, not nan"),
        ({"min_crop": 1.1}, r"min_crop must be above 0 and at most 1, not 1\.1"),
        ({"width": 0}, "a view of 0x480 has no pixels"),
    ],
)
def test_ranges_that_no_homography_can_have_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        HomographyRecipe(**values)


def test_as_many_homographies_as_asked_are_turned_by_any_angle():
    def turns(part):
        recipe = replace(SMALL, perspective=0.0, rotation_deg=10.0, turned=part, min_overlap=0.1)
        rng = np.random.default_rng(5)
        found = [sample_homography(rng, recipe) for _ in range(200)]
        return np.degrees([np.arctan2(h[1, 0], h[0, 0]) for h in found])

    assert np.abs(turns(0.0)).max() <= 10.0 + 1e-6
    beyond = np.abs(turns(0.3)) > 10.0
    assert 0.2 < beyond.mean() < 0.36  # 0.28 expected
    assert np.abs(turns(1.0)).max() > 170
    with pytest.raises(ConfigError, match=r"turned must be a part from 0 to 1, not 1\.5"):
        replace(SMALL, turned=1.5)
