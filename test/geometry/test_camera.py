"""Cameras: against OpenCV's own distortion, and the properties that hold for any camera."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.errors import CalibrationError
from superglue_ros.geometry.camera import Camera, camera_from_info

K = [500.0, 0, 319.5, 0, 480.0, 239.5, 0, 0, 1]
PLUMB_BOB = [-0.28, 0.09, 0.001, -0.0015, -0.01]
TUM_FREIBURG1 = [0.262383, -0.953104, -0.005358, 0.002628, 1.163314]
RATIONAL = [0.35, -0.1, 0.0008, -0.0005, 0.01, 0.5, -0.05, 0.02]
FISHEYE = [-0.01, 0.02, -0.008, 0.001]


def grid(width: int = 640, height: int = 480) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, width - 1, 12), np.linspace(0, height - 1, 9))
    return np.column_stack((x.ravel(), y.ravel()))


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("", []),
        ("plumb_bob", PLUMB_BOB),
        ("plumb_bob", TUM_FREIBURG1),
        ("plumb_bob", PLUMB_BOB[:4]),
        ("rational_polynomial", RATIONAL),
        ("rational_polynomial", [*RATIONAL, 0, 0, 0, 0]),
        ("equidistant", FISHEYE),
    ],
)
def test_rays_and_project_are_inverse_and_agree_with_opencv(model, distortion):
    camera = camera_from_info(640, 480, K, distortion, model=model)
    pixels = grid()
    rays = camera.rays(pixels)
    np.testing.assert_allclose(camera.distort(rays), pixels, atol=1e-6)
    points = np.column_stack((rays, np.ones(len(rays)))) * np.linspace(0.5, 9, len(rays))[:, None]
    np.testing.assert_allclose(camera.project(points), pixels, atol=1e-6)
    project = cv2.fisheye.projectPoints if model == "equidistant" else _project
    expected, _ = project(
        points[:, None], np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), np.array(distortion)
    )
    np.testing.assert_allclose(expected.reshape(-1, 2), pixels, atol=1e-6)


def _project(points, rotation, translation, matrix, distortion):
    return cv2.projectPoints(points, rotation, translation, matrix, distortion)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8),
    st.lists(st.tuples(st.floats(-0.6, 0.6), st.floats(-0.5, 0.5)), min_size=1, max_size=20),
)
def test_any_mild_distortion_is_inverted(coefficients, rays):
    coefficients[2] *= 0.02
    coefficients[3] *= 0.02
    camera = Camera(640, 480, np.reshape(K, (3, 3)), coefficients, "rational_polynomial")
    np.testing.assert_allclose(camera.rays(camera.distort(rays)), rays, atol=1e-8)


def test_a_pixel_no_ray_reaches_is_nan_not_a_wrong_ray():
    # x (1 - 0.5 x^2) has its maximum 0.544 at x = 0.816: no ray lands beyond.
    camera = Camera(2000, 2000, np.diag([1000.0, 1000.0, 1.0]), [-0.5, 0, 0, 0])
    rays = camera.rays([[540.0, 0.0], [560.0, 0.0]])
    assert np.isfinite(rays[0]).all()
    assert rays[0, 0] < 0.8165
    assert np.isnan(rays[1]).all()


def test_points_behind_the_camera_do_not_project():
    camera = camera_from_info(640, 480, K)
    assert np.isnan(camera.project([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]])).all()


def test_uncalibrated_is_none():
    assert camera_from_info(640, 480, np.zeros(9)) is None


def test_rectified_images_follow_p_and_have_no_distortion():
    p = [450.0, 0, 310, -45, 0, 450, 235, 0, 0, 0, 1, 0]
    camera = camera_from_info(640, 480, K, PLUMB_BOB, p, rectified=True)
    assert camera.distortion.size == 0
    np.testing.assert_allclose(camera.rays([[310.0, 235.0], [760.0, 235.0]]), [[0, 0], [1, 0]])
    raw = camera_from_info(640, 480, K, PLUMB_BOB, p)
    np.testing.assert_allclose(raw.matrix, np.reshape(K, (3, 3)))
    with pytest.raises(CalibrationError, match="P is not set"):
        camera_from_info(640, 480, K, PLUMB_BOB, rectified=True)


def test_region_of_interest_shifts_pixels_and_keeps_rays():
    full = camera_from_info(640, 480, K, RATIONAL, model="rational_polynomial")
    part = camera_from_info(
        640, 480, K, RATIONAL, model="rational_polynomial", roi=(100, 60, 200, 120)
    )
    assert (part.width, part.height) == (200, 120)
    pixels = grid(200, 120)
    np.testing.assert_allclose(
        part.rays(pixels), full.rays(pixels + np.array([100, 60])), atol=1e-9
    )


def test_binning_keeps_the_centres_of_super_pixels():
    full = camera_from_info(640, 480, K, PLUMB_BOB)
    binned = camera_from_info(
        640, 480, K, PLUMB_BOB, binning_x=2, binning_y=4, roi=(8, 16, 320, 240)
    )
    assert (binned.width, binned.height) == (160, 60)
    # Super-pixel (3, 5) covers columns 8 + 6..7 and rows 16 + 20..23 of the sensor.
    np.testing.assert_allclose(binned.rays([[3, 5]]), full.rays([[14.5, 37.5]]), atol=1e-9)


def test_ray_sigma_is_the_local_scale_of_the_lens():
    camera = camera_from_info(640, 480, K, RATIONAL, model="rational_polynomial")
    pixels = np.array([[319.5, 239.5], [600.0, 60.0]])
    rays = camera.rays(pixels)
    step = 1e-3
    across = (camera.rays(pixels + np.array([step, 0])) - rays) / step
    down = (camera.rays(pixels + np.array([0, step])) - rays) / step
    area = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])
    np.testing.assert_allclose(camera.ray_sigma(rays, [2.0, 2.0]), 2 * np.sqrt(area), rtol=1e-4)


def test_no_points_give_no_rays():
    camera = camera_from_info(640, 480, K, PLUMB_BOB)
    assert camera.rays(np.zeros((0, 2))).shape == (0, 2)
    assert camera.project(np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": [float("nan")] * 9}, "K holds NaN"),
        ({"k": K[:6]}, "K has 6 values"),
        ({"d": [0.1, float("inf"), 0, 0, 0]}, "D holds NaN or infinite"),
        ({"d": [0.1, 0.2]}, "plumb_bob has 5"),
        ({"d": RATIONAL}, "D has 8 coefficients"),
        ({"d": FISHEYE, "model": "omnidirectional"}, "'omnidirectional' is unknown"),
        ({"d": [0.1] * 14, "model": "rational_polynomial"}, "thin-prism"),
        ({"k": [-500.0, *K[1:]]}, "must be positive"),
        ({"width": 0}, "true size"),
        ({"roi": (600, 0, 100, 100)}, "leaves the 640x480 sensor"),
        ({"p": [1.0, 2.0], "rectified": True}, "P has 2 values"),
    ],
)
def test_bad_calibration_names_the_field(arguments, message):
    with pytest.raises(CalibrationError, match=message):
        camera_from_info(**{"width": 640, "height": 480, "k": K, **arguments})


@pytest.mark.parametrize(
    ("index", "value"),
    [((0, 2), 1e160), ((0, 0), 1e300), ((0, 0), 1e-300), ((0, 1), 1e20), ((2, 0), 1e160),
     ((2, 2), 0.0), ((1, 0), 3.0)],
)  # fmt: skip
def test_finite_but_absurd_intrinsics_are_refused(index: tuple[int, int], value: float) -> None:
    """They overflowed in the linear algebra behind."""
    matrix = np.array([[200.0, 0, 100], [0, 200, 75], [0, 0, 1]])
    matrix[index] = value
    with pytest.raises(CalibrationError, match="K "):
        Camera(200, 150, matrix, np.zeros(0))


def test_an_absurd_coefficient_is_refused() -> None:
    matrix = np.array([[200.0, 0, 100], [0, 200, 75], [0, 0, 1]])
    with pytest.raises(CalibrationError, match="D has a coefficient"):
        Camera(200, 150, matrix, np.array([1e150, 0, 0, 0]))
