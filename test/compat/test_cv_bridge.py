"""Where the ``cv_bridge`` of ``compat/`` does better than the real one (see the contract test)."""

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS")

import cv_bridge
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.skipif(
    not (cv_bridge.__file__ or "")
    .replace("\\", "/")
    .endswith("compat/cv_bridge/cv_bridge/__init__.py"),
    reason="the real cv_bridge is installed",
)

BRIDGE = cv_bridge.CvBridge()


def rgb_with_step(step):
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    rows = np.zeros((4, step), np.uint8)
    rows[:, :15] = image.reshape(4, 15)
    message = Image(height=4, width=5, encoding="rgb8", step=step)
    message.data = array.array("B", rows.tobytes())
    return message, image


@pytest.mark.parametrize("step", [15, 16, 17, 20])
def test_padding_need_not_be_whole_pixels(step):
    message, image = rgb_with_step(step)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), image)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_big_endian_images_are_read_in_native_order(dtype):
    image = (np.arange(12).reshape(3, 4) * 1000.5).astype(dtype)
    message = BRIDGE.cv2_to_imgmsg(image.astype(np.dtype(dtype).newbyteorder(">")))
    assert message.is_bigendian
    result = BRIDGE.imgmsg_to_cv2(message)
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, image)


def test_wrong_layouts_are_named():
    message, _ = rgb_with_step(16)
    message.step = 14
    with pytest.raises(cv_bridge.CvBridgeError, match=r"step 14 is shorter.*15 bytes"):
        BRIDGE.imgmsg_to_cv2(message)
    message, _ = rgb_with_step(16)
    message.data = message.data[:60]
    with pytest.raises(cv_bridge.CvBridgeError, match=r"60 bytes of data.*height 4 x step 16"):
        BRIDGE.imgmsg_to_cv2(message)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 not a picture"])
def test_damaged_compressed_images_are_refused(data):
    message = CompressedImage(format="jpeg")
    message.data.frombytes(data)
    with pytest.raises(cv_bridge.CvBridgeError, match="not an image"):
        BRIDGE.compressed_imgmsg_to_cv2(message)


def test_grey_jpegs_can_be_asked_for_as_grey():
    image = np.full((16, 16), 100, np.uint8)
    message = BRIDGE.cv2_to_compressed_imgmsg(image)
    result = BRIDGE.compressed_imgmsg_to_cv2(message, "mono8")
    np.testing.assert_allclose(result, image, atol=1)


def test_unknown_formats_and_types_are_refused():
    with pytest.raises(cv_bridge.CvBridgeError, match="nonsense"):
        BRIDGE.cv2_to_compressed_imgmsg(np.zeros((4, 4), np.uint8), "nonsense")
    with pytest.raises(cv_bridge.CvBridgeError, match="complex64"):
        BRIDGE.cv2_to_imgmsg(np.zeros((4, 4), np.complex64))
