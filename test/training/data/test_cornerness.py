import numpy as np
import pytest

from superglue_ros.training.data.cornerness import cornerness


@pytest.fixture
def square() -> np.ndarray:
    image = np.full((80, 100), 60, np.uint8)
    image[30:60, 40:80] = 180
    return image


def test_corners_can_be_localised_and_edges_cannot(square):
    ratio = cornerness(square)
    corners = ratio[[30, 30, 59, 59], [40, 79, 40, 79]]
    edges = ratio[[30, 59, 45, 45], [60, 60, 40, 79]]
    assert (corners > 0.5).all()
    assert (edges < 1e-3).all()


def test_a_slanted_edge_is_no_corner():
    y, x = np.mgrid[:90, :90]
    edge = np.clip(128 + 60 * (2 * x - y - 45) / 5, 60, 200).astype(np.uint8)
    assert cornerness(edge)[20:70, 20:70].max() < 0.05


def test_noise_in_an_empty_area_is_no_corner():
    rng = np.random.default_rng(0)
    sky = np.clip(np.rint(rng.normal(150, 0.7, (90, 90))), 0, 255).astype(np.uint8)
    assert np.median(cornerness(sky)) < 0.25
    assert cornerness(np.full((90, 90), 7, np.uint8)).max() == 0


def test_does_not_depend_on_the_sign_of_contrast(square):
    np.testing.assert_allclose(cornerness(255 - square), cornerness(square), atol=1e-5)
