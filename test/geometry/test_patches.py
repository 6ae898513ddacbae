"""Patches, and how neighbourhoods of matches are deformed."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.geometry.patches import halved, halved_points, local_affine, patches


def matches(matrix: np.ndarray, count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (K, 2), and where ``matrix`` (2, 2) and a shift take them."""
    points = np.random.default_rng(seed).uniform(0, 400, (count, 2)).astype(np.float32)
    return points, (points @ matrix.T + [12.0, -7.0]).astype(np.float32)


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(2),
        np.array([[0.0, -1.2], [1.2, 0.0]]),
        np.array([[1.3, 0.4], [-0.1, 0.8]]),
        np.array([[0.6, 0.0], [0.0, 1.1]]),
    ],
)
def test_an_affine_map_is_found_in_spite_of_noise_and_wrong_matches(matrix):
    rng = np.random.default_rng(1)
    points, moved = matches(matrix)
    moved += rng.normal(0, 0.5, moved.shape).astype(np.float32)
    wrong = rng.random(len(points)) < 0.2
    moved[wrong] = rng.uniform(0, 400, (wrong.sum(), 2))
    found = local_affine(points, moved)
    assert found.dtype == np.float32
    error = np.abs(found - matrix).max(axis=(1, 2))[~wrong]
    assert np.median(error) < 0.06
    assert np.quantile(error, 0.9) < 0.2


def test_two_halves_that_move_differently_have_a_map_each():
    points, _ = matches(np.eye(2), 400)
    right = points[:, 0] > 200
    grown = np.where(right[:, None], 1.4 * points + [-80, -60], points).astype(np.float32)
    found = local_affine(points, grown)
    for half, scale in ((points[:, 0] < 150, 1.0), (points[:, 0] > 250, 1.4)):
        assert np.abs(found[half] - scale * np.eye(2)).max(axis=(1, 2)).mean() < 0.05


def test_neighbours_in_a_line_leave_the_similarity_across_it():
    turn = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
    line = np.stack([np.linspace(0, 400, 120), np.full(120, 50.0)], axis=1).astype(np.float32)
    found = local_affine(line, line @ turn.T)
    assert np.abs(found - turn).max() < 0.05


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_few_matches_have_the_identity(count):
    points, moved = matches(np.eye(2), count)
    found = local_affine(points, moved)
    assert found.shape == (count, 2, 2)
    assert np.abs(found - np.eye(2)).max(initial=0) < 1e-4


def test_a_neighbourhood_does_not_shrink_to_nothing():
    points, _ = matches(np.eye(2), 60)
    found = local_affine(points, np.full_like(points, 7.0))
    assert np.isfinite(found).all()
    assert np.linalg.det(found).min() > 0.1


def test_a_halved_image_shows_the_same_at_the_halved_pixel():
    y, x = np.mgrid[:41, :61]
    image = (2 * x + y).astype(np.uint8)
    half = halved(image)
    assert half.shape == (20, 30)
    points = np.array([[20.5, 10.5], [33.0, 8.0]], np.float32)
    found, inside = patches(half, halved_points(points), None, 5)
    assert inside.all()
    assert np.allclose(found[:, 2, 2], 2 * points[:, 0] + points[:, 1], atol=1.0)
    assert halved(image[:1]).size == 0
