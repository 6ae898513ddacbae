"""The network's refinement on a photograph moved, turned and scaled by known amounts."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data

from superglue_ros.data.image import to_grey
from superglue_ros.engines.refinement import NetworkRefinement
from superglue_ros.geometry.refinement import LucasKanade

SIZE = (320, 240)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return cv2.resize(to_grey(skimage.data.coffee()[..., ::-1]), SIZE)


@pytest.fixture(scope="module")
def refiner() -> NetworkRefinement:
    return NetworkRefinement()


def view(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image moved by ``matrix`` (2, 3), corners that both show, and where they went."""
    moved = cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_CUBIC)
    corners = cv2.goodFeaturesToTrack(image, 150, 0.02, 6)[:, 0]
    truth = (corners @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    inside = ((truth > 16) & (truth < np.array(SIZE) - 16)).all(axis=1)
    inside &= ((corners > 16) & (corners < np.array(SIZE) - 16)).all(axis=1)
    assert inside.sum() > 40
    return moved, corners[inside], truth[inside]


def displaced(truth: np.ndarray, sigma: float = 0.8, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, truth.shape)
    return (truth + noise).astype(np.float32)


def test_a_shift_is_found_to_a_fraction_of_a_pixel(photograph, refiner):
    moved, corners, truth = view(photograph, np.array([[1, 0, 3.3], [0, 1, -1.6]]))
    start = displaced(truth)
    found = refiner.refine(photograph, moved, corners, start).points
    assert found.dtype == np.float32
    assert np.median(np.linalg.norm(start - truth, axis=1)) > 0.7
    assert np.median(np.linalg.norm(found - truth, axis=1)) < 0.2


@pytest.mark.parametrize(("degrees", "scale"), [(25, 1.0), (0, 1.35), (90, 1.0), (-40, 0.8)])
def test_rotation_and_scale_are_found_where_lucas_kanade_fails(photograph, refiner, degrees, scale):
    matrix = cv2.getRotationMatrix2D((160, 120), degrees, scale)
    moved, corners, truth = view(photograph, matrix)
    start = displaced(truth)
    found = refiner.refine(photograph, moved, corners, start).points
    error = np.median(np.linalg.norm(found - truth, axis=1))
    rival = LucasKanade().refine(photograph, moved, corners, start).points
    assert error < 0.4
    assert error < 0.7 * np.median(np.linalg.norm(rival - truth, axis=1))


def test_the_coarse_step_finds_what_is_further_than_full_size_shows(
    photograph, refiner, monkeypatch
):
    moved, corners, truth = view(photograph, cv2.getRotationMatrix2D((160, 120), 8, 1.1))
    far = 7 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    start = truth + far[np.arange(len(truth)) % 4]
    found = [refiner.refine(photograph, moved, corners, start).points]
    monkeypatch.setattr(NetworkRefinement, "STEPS", 3 * ((0, 0.0),))
    found.append(refiner.refine(photograph, moved, corners, start).points)
    right = [np.mean(np.linalg.norm(points - truth, axis=1) < 1) for points in found]
    assert right[0] > 0.8
    assert right[1] < 0.3


def test_an_uncertain_coarse_step_is_not_taken(refiner, monkeypatch):
    """Coarse noise that differs between the images, under fine texture that does not."""
    rng = np.random.default_rng(0)
    fine = rng.normal(0, 1, (240, 320)).astype(np.float32)
    fine = 40 * (cv2.GaussianBlur(fine, (0, 0), 1.0) - cv2.GaussianBlur(fine, (0, 0), 3.0))
    images = []
    for seed in (1, 2):
        coarse = np.random.default_rng(seed).normal(0, 1, (240, 320)).astype(np.float32)
        coarse = 500 * cv2.GaussianBlur(coarse, (0, 0), 8.0)
        images.append(np.clip(128 + 4 * fine + coarse, 0, 255).astype(np.uint8))
    points = np.stack(np.meshgrid(np.arange(60, 260, 20), np.arange(60, 180, 20)), -1)
    points = points.reshape(-1, 2).astype(np.float32)
    kept = np.linalg.norm(refiner.refine(*images, points, points).points - points, axis=1)
    monkeypatch.setattr(NetworkRefinement, "UNCERTAIN_PX", np.inf)
    moved = np.linalg.norm(refiner.refine(*images, points, points).points - points, axis=1)
    assert np.median(kept) < 0.3
    assert np.mean(kept > 1) < 0.7 * np.mean(moved > 1)


def test_each_step_is_nearer_than_the_one_before(photograph, refiner, monkeypatch):
    moved, corners, truth = view(photograph, cv2.getRotationMatrix2D((160, 120), 8, 1.1))
    found, steps = [displaced(truth, sigma=1.6)], NetworkRefinement.STEPS
    for count in (1, 2, 3):
        monkeypatch.setattr(NetworkRefinement, "STEPS", steps[:count])
        found.append(refiner.refine(photograph, moved, corners, found[0]).points)
    errors = [np.median(np.linalg.norm(points - truth, axis=1)) for points in found]
    assert all(after < 0.7 * before for before, after in pairwise(errors))


def test_only_a_long_step_is_repeated(photograph, refiner, monkeypatch):
    moved, corners, truth = view(photograph, cv2.getRotationMatrix2D((160, 120), 8, 1.1))
    start = displaced(truth, sigma=0.7)
    last = NetworkRefinement.STEPS[-1][1]
    found = []
    for steps in (((0, 0.0),), ((0, 0.0), (0, last))):
        monkeypatch.setattr(NetworkRefinement, "STEPS", steps)
        found.append(refiner.refine(photograph, moved, corners, start).points)
    once, twice = found
    long = np.linalg.norm(once - start, axis=1) > last
    assert 0.2 < long.mean() < 0.8
    assert np.array_equal(once[~long], twice[~long])
    errors = [np.median(np.linalg.norm(points - truth, axis=1)[long]) for points in found]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("stretch", [1.5, 1 / 1.5])
def test_stretched_patches_are_registered_by_an_affine_map(photograph, refiner, stretch):
    """A surface at a slant fits no similarity: at most twice the error of the upright one."""
    middle = SIZE[0] / 2
    slanted = np.array([[stretch, 0.2, middle * (1 - stretch) - 20], [0, 1, 2.3]])
    errors = []
    for matrix in (slanted, np.array([[1, 0, 3.3], [0, 1, 2.3]])):
        moved, corners, truth = view(photograph, matrix)
        found = refiner.refine(photograph, moved, corners, displaced(truth)).points
        errors.append(np.median(np.linalg.norm(found - truth, axis=1)))
    assert errors[0] < 0.3
    assert errors[0] < 2 * errors[1]


def test_another_exposure_changes_little(photograph, refiner):
    moved, corners, truth = view(photograph, np.array([[1, 0, 3.3], [0, 1, -1.6]]))
    darker = np.clip(0.6 * moved.astype(np.float32) + 20, 0, 255).astype(np.uint8)
    start = displaced(truth)
    plain = refiner.refine(photograph, moved, corners, start).points
    found = refiner.refine(photograph, darker, corners, start).points
    assert np.median(np.linalg.norm(found - plain, axis=1)) < 0.05


def test_the_covariance_tells_the_size_of_the_error(photograph, refiner):
    """Squared errors in units of the covariance: 2 in the mean, and larger where it is larger."""
    squared, sigma, errors = [], [], []
    for seed, turn in enumerate((0, 5, 12)):
        moved, corners, truth = view(
            photograph, cv2.getRotationMatrix2D((160, 120), turn, 1.0 + 0.05 * seed)
        )
        found = refiner.refine(photograph, moved, corners, displaced(truth, seed=seed))
        error = found.points - truth
        assert found.covariance is not None
        assert np.allclose(found.covariance, found.covariance.swapaxes(1, 2))
        assert (np.linalg.eigvalsh(found.covariance) > 0).all()
        inverse = np.linalg.inv(found.covariance)
        squared.append(np.einsum("ki,kij,kj->k", error, inverse, error))
        sigma.append(np.sqrt(np.trace(found.covariance, axis1=1, axis2=2)))
        errors.append(np.linalg.norm(error, axis=1))
    nees, spread, size = map(np.concatenate, (squared, sigma, errors))
    assert 0.5 < nees.mean() < 4.0
    sure = spread < np.median(spread)
    assert size[sure].mean() < 0.7 * size[~sure].mean()


def test_along_an_edge_the_covariance_is_long(refiner):
    image = np.full((100, 100), 60, np.uint8)
    image[50:] = 180
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    points = np.array([[x, 50.0] for x in range(30, 70, 4)], np.float32)
    covariance = refiner.refine(image, image, points, points).covariance
    assert covariance is not None
    mean = covariance.mean(axis=0)
    assert mean[0, 0] > 4 * mean[1, 1]


def test_turning_the_query_turns_offset_and_covariance(photograph, refiner):
    """A quarter turn, which resamples nothing: results are the same in the turned frame."""
    moved, corners, truth = view(photograph, np.array([[1, 0, 3.3], [0, 1, -1.6]]))
    start = displaced(truth)
    plain = refiner.refine(photograph, moved, corners, start)
    turned = np.ascontiguousarray(np.rot90(moved))
    turn = np.array([[0, 1], [-1, 0]], np.float32)
    shift = np.array([0, SIZE[0] - 1], np.float32)
    found = refiner.refine(photograph, turned, corners, start @ turn.T + shift)
    assert plain.covariance is not None
    assert found.covariance is not None
    assert np.abs(found.points - (plain.points @ turn.T + shift)).max() < 0.05
    assert np.abs(found.covariance - turn @ plain.covariance @ turn.T).max() < 0.1


def test_other_scenes_are_said_to_be_uncertain(photograph, refiner):
    other = cv2.resize(to_grey(skimage.data.chelsea()[..., ::-1]), SIZE)
    moved, corners, truth = view(photograph, np.array([[1, 0, 3.3], [0, 1, -1.6]]))
    right = refiner.refine(photograph, moved, corners, displaced(truth)).covariance
    wrong = refiner.refine(photograph, other, corners, displaced(truth)).covariance
    assert right is not None
    assert wrong is not None
    assert np.median(np.linalg.det(wrong)) > 10 * np.median(np.linalg.det(right))


def test_patches_over_the_border_keep_their_pixel(photograph, refiner):
    edge = np.array([[0, 0], [319, 239], [4, 120], [160, 120]], np.float32)
    found = refiner.refine(photograph, photograph, edge, edge + np.float32(0.3))
    assert found.covariance is not None
    assert np.array_equal(found.points[:3], edge[:3] + np.float32(0.3))
    assert np.isnan(found.covariance[:3]).all()
    assert np.isfinite(found.covariance[3]).all()


def test_flat_images_and_few_matches_give_finite_results(refiner):
    flat = np.full((60, 80), 128, np.uint8)
    for count in (0, 1, 3):
        points = np.full((count, 2), 30.0, np.float32)
        found = refiner.refine(flat, flat, points, points)
        assert found.covariance is not None
        assert found.points.shape == (count, 2)
        assert np.isfinite(found.points).all()
        assert np.isfinite(found.covariance).all()
        assert (np.linalg.norm(found.points - points, axis=1) <= refiner.MOST_PX + 1e-4).all()
