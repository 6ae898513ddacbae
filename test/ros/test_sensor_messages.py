"""Images, depth and calibrations: values, units and errors."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import (
    HEIGHT,
    WIDTH,
    camera_info,
    compressed_message,
    image_message,
    picture,
)

from superglue_ros.data.image_layout import BYTES_PER_PIXEL
from superglue_ros.errors import CalibrationError, ImageError
from superglue_ros.ros import sensor_messages

LIMIT = 10_000_000


def test_padded_rows_are_cut() -> None:
    padded = np.pad(picture(), ((0, 0), (0, 24)))
    message = image_message(padded, 1.0)
    message.width = WIDTH
    np.testing.assert_array_equal(sensor_messages.image_to_grey(message, LIMIT), picture())


def test_padding_of_less_than_a_pixel_is_cut() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    message = image_message(rgb[:, :, 0], 1.0)
    message.encoding, message.step = "rgb8", 16
    padded = np.pad(rgb.reshape(4, 15), ((0, 0), (0, 1)), constant_values=255)
    message.data = array.array("B", padded.tobytes())
    expected = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(sensor_messages.image_to_grey(message, LIMIT), expected)


def test_colours_are_weighted_as_rec_601() -> None:
    for encoding, order in (("rgb8", slice(None)), ("bgr8", slice(None, None, -1))):
        rgb = np.zeros((4, 6, 3), np.uint8)
        rgb[:] = (200, 100, 50)
        message = image_message(np.ascontiguousarray(rgb[:, :, order]), 1.0, encoding)
        grey = sensor_messages.image_to_grey(message, LIMIT)
        assert grey.shape == (4, 6)
        assert abs(int(grey[0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_sixteen_bits_in_both_byte_orders() -> None:
    values = picture().astype(np.uint16) * 257
    for big, data in ((0, values), (1, values.byteswap())):
        message = image_message(data, 1.0, "mono16")
        message.is_bigendian = big
        grey = sensor_messages.image_to_grey(message, LIMIT)
        assert np.abs(grey.astype(int) - picture()).max() <= 1


@pytest.mark.parametrize(
    "encoding", ["bayer_rggb8", "bayer_grbg8", "yuv422_yuy2", "mono8", "8UC1", "rgba8", "bgr16"]
)
def test_every_encoding_gives_a_grey_image_of_its_size(encoding: str) -> None:
    size = BYTES_PER_PIXEL[encoding]
    message = image_message(np.full((8, 10 * size), 90, np.uint8), 1.0, encoding)
    message.width = 10
    assert sensor_messages.image_to_grey(message, LIMIT).shape == (8, 10)


def test_a_compressed_picture_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="more than 100 pixels"):
        sensor_messages.compressed_to_grey(compressed_message(picture(), 1.0), 100)


def test_depth_units() -> None:
    millimetres = np.array([[0, 1000], [2500, 65535]], np.uint16)
    depth = sensor_messages.depth_to_metres(image_message(millimetres, 1.0, "16UC1"), 2, 2)
    np.testing.assert_allclose(depth, [[0, 1], [2.5, 65.535]], rtol=1e-6)
    metres = np.array([[np.nan, 1.5]], np.float32)
    depth = sensor_messages.depth_to_metres(image_message(metres, 1.0, "32FC1"), 2, 1)
    np.testing.assert_array_equal(depth, metres)
    big = image_message(millimetres.byteswap(), 1.0, "16UC1")
    big.is_bigendian = 1
    np.testing.assert_allclose(sensor_messages.depth_to_metres(big, 2, 2)[1, 0], 2.5)


def test_depth_that_does_not_fit_is_refused() -> None:
    depth = np.zeros((4, 4), np.uint16)
    with pytest.raises(ImageError, match="register the depth"):
        sensor_messages.depth_to_metres(image_message(depth, 1.0, "16UC1"), 8, 8)
    with pytest.raises(ImageError, match="16UC1"):
        sensor_messages.depth_to_metres(image_message(depth, 1.0, "rgb8"), 4, 4)


def test_camera_of_a_rectified_image_follows_p() -> None:
    message = camera_info(1.0)
    message.d = [0.3, 0.1, 0.0, 0.0, 0.0]
    message.p[0] = 150.0
    raw = sensor_messages.camera_info_to_camera(message, WIDTH, HEIGHT, rectified=False)
    rectified = sensor_messages.camera_info_to_camera(message, WIDTH, HEIGHT, rectified=True)
    assert raw is not None
    assert rectified is not None
    assert (raw.matrix[0, 0], raw.distorted) == (200, True)
    assert (rectified.matrix[0, 0], rectified.distorted) == (150, False)


def test_binning_and_region_of_interest_decide_the_size() -> None:
    message = camera_info(1.0, width=400, height=300)
    message.binning_x = message.binning_y = 2
    camera = sensor_messages.camera_info_to_camera(message, 200, 150, rectified=False)
    assert camera is not None
    assert camera.matrix[0, 0] == pytest.approx(100)
    with pytest.raises(CalibrationError, match="200x150 but the image is 400x300"):
        sensor_messages.camera_info_to_camera(message, 400, 300, rectified=False)


def test_uncalibrated_is_none() -> None:
    message = camera_info(1.0)
    message.k = [0.0] * 9
    assert sensor_messages.camera_info_to_camera(message, WIDTH, HEIGHT, rectified=False) is None
