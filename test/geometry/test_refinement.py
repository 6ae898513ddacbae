"""Refinement of matches on a photograph that moved by a known fraction of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from superglue_ros.data.image import to_grey
from superglue_ros.errors import ConfigError
from superglue_ros.geometry.refinement import LucasKanade, make_refiner
from superglue_ros.registry import REFINERS

SHIFT = np.array([3.3, -1.6], np.float32)


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, the same moved by SHIFT, and corners of the first that both show."""
    first = cv2.resize(to_grey(skimage.data.coffee()[..., ::-1]), (320, 240))
    matrix = np.array([[1, 0, SHIFT[0]], [0, 1, SHIFT[1]]])
    second = cv2.warpAffine(first, matrix, (320, 240), flags=cv2.INTER_CUBIC)
    corners = cv2.goodFeaturesToTrack(first, 80, 0.05, 10)[:, 0]
    inside = (corners > 15).all(axis=1) & (corners < [305, 225]).all(axis=1)
    return first, second, corners[inside]


def errors(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - corners - SHIFT, axis=1)


@pytest.mark.parametrize("name", REFINERS)
def test_every_refiner_keeps_shape_type_and_empty_input(views, name):
    first, second, corners = views
    refiner = make_refiner(name)
    found = refiner.refine(first, second, corners, corners + SHIFT)
    assert found.points.shape == corners.shape
    assert found.points.dtype == np.float32
    assert found.covariance is None or found.covariance.shape == (len(corners), 2, 2)
    none = np.zeros((0, 2), np.float32)
    assert refiner.refine(first, second, none, none).points.shape == (0, 2)


@pytest.mark.parametrize("name", REFINERS)
def test_matches_whose_patches_all_leave_the_image_stay_where_they_are(views, name):
    corner = np.zeros((3, 2), np.float32)
    found = make_refiner(name).refine(*views[:2], corner, corner)
    np.testing.assert_array_equal(found.points, corner)


def test_whole_pixels_become_fractions(views):
    first, second, corners = views
    rough = np.rint(corners + SHIFT + np.random.default_rng(0).normal(0, 0.5, corners.shape))
    rough = rough.astype(np.float32)
    found = LucasKanade().refine(first, second, corners, rough).points
    assert len(corners) > 40
    assert np.median(errors(rough, corners)) > 0.5
    assert np.median(errors(found, corners)) < 0.05


def test_what_is_far_off_stays_where_it_is(views):
    first, second, corners = views
    wrong = corners + SHIFT + np.array([8, 6], np.float32)
    found = LucasKanade().refine(first, second, corners, wrong).points
    assert (np.linalg.norm(found - wrong, axis=1) <= LucasKanade.MOST_PX).all()
    assert (found == wrong).all(axis=1).mean() > 0.8


def test_a_step_that_does_not_lead_back_is_refused(views):
    """The query shows something else: steps that end anywhere do not return."""
    first, _, corners = views
    other = cv2.resize(to_grey(skimage.data.chelsea()[..., ::-1]), (320, 240))
    found = LucasKanade().refine(first, other, corners, corners).points
    assert (found == corners).all(axis=1).mean() > 0.8


def test_none_changes_nothing(views):
    first, second, corners = views
    assert make_refiner("none").refine(first, second, corners, corners).points is corners


def test_an_unknown_refiner_is_named():
    with pytest.raises(
        ConfigError, match=r"unknown refinement of matches 'icp'.*none, lk, network"
    ):
        make_refiner("icp")
