"""What superglue_ros relies on in ``cv_bridge``: the real package passes it unchanged."""

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS")

import cv2
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

BRIDGE = CvBridge()
H, W = 6, 8


def pixels(dtype=np.uint8, channels=1):
    shape = (H, W) if channels == 1 else (H, W, channels)
    values = np.random.default_rng(0).uniform(0, 250, shape)
    return (values * (257 if dtype == np.uint16 else 1)).astype(dtype)


def image_message(image, encoding, padding=0, big_endian=False):
    """Return an Image made by hand, each row followed by ``padding`` bytes of rubbish."""
    ordered = image.astype(image.dtype.newbyteorder(">" if big_endian else "<"))
    rows = ordered.reshape(H, -1).view(np.uint8)
    rows = np.hstack([rows, np.full((H, padding), 0xAB, np.uint8)])
    return Image(
        height=H,
        width=W,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(big_endian),
        data=array.array("B", rows.tobytes()),
    )


SAME_LAYOUT = [
    ("mono8", np.uint8, 1),
    ("bgr8", np.uint8, 3),
    ("rgb8", np.uint8, 3),
    ("bgra8", np.uint8, 4),
    ("mono16", np.uint16, 1),
    ("rgb16", np.uint16, 3),
    ("bayer_rggb8", np.uint8, 1),
    ("8UC1", np.uint8, 1),
    ("8UC3", np.uint8, 3),
    ("16UC1", np.uint16, 1),
    ("32FC1", np.float32, 1),
    ("64FC2", np.float64, 2),
]


@pytest.mark.parametrize(("encoding", "dtype", "channels"), SAME_LAYOUT)
def test_passthrough_returns_the_pixels(encoding, dtype, channels):
    image = pixels(dtype, channels)
    result = BRIDGE.imgmsg_to_cv2(image_message(image, encoding))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(("encoding", "dtype", "channels"), SAME_LAYOUT)
def test_padding_at_the_end_of_rows_is_dropped(encoding, dtype, channels):
    # The real package takes only whole pixels of padding.
    image = pixels(dtype, channels)
    padding = 3 * channels * np.dtype(dtype).itemsize
    result = BRIDGE.imgmsg_to_cv2(image_message(image, encoding, padding))
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(("encoding", "dtype", "channels"), SAME_LAYOUT)
def test_messages_come_back_as_they_went(encoding, dtype, channels):
    image = pixels(dtype, channels)
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert (message.height, message.width, message.encoding) == (H, W, encoding)
    assert message.step == W * channels * np.dtype(dtype).itemsize
    assert not message.is_bigendian
    assert message.data.tobytes() == image.tobytes()
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), image)


def test_the_type_is_the_encoding_unless_told():
    assert BRIDGE.cv2_to_imgmsg(pixels()).encoding == "8UC1"
    assert BRIDGE.cv2_to_imgmsg(pixels(np.uint16, 3)).encoding == "16UC3"


def test_the_header_is_taken_over():
    header = Header(frame_id="camera")
    header.stamp.sec = 42
    message = BRIDGE.cv2_to_imgmsg(pixels(), "mono8", header=header)
    assert (message.header.frame_id, message.header.stamp.sec) == ("camera", 42)


def test_slices_of_larger_images_are_taken():
    image = pixels(channels=3)[:, ::2]
    result = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, "bgr8"))
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        ("rgb8", "mono8", cv2.COLOR_RGB2GRAY),
        ("bgr8", "mono8", cv2.COLOR_BGR2GRAY),
        ("rgba8", "mono8", cv2.COLOR_RGBA2GRAY),
        ("bgra8", "bgr8", cv2.COLOR_BGRA2BGR),
        ("rgb8", "bgr8", cv2.COLOR_RGB2BGR),
        ("mono8", "bgr8", cv2.COLOR_GRAY2BGR),
        ("bayer_rggb8", "bgr8", cv2.COLOR_BayerBG2BGR),
        ("bayer_bggr8", "mono8", cv2.COLOR_BayerRG2GRAY),
        ("bayer_gbrg8", "mono8", cv2.COLOR_BayerGR2GRAY),
        ("bayer_grbg8", "rgb8", cv2.COLOR_BayerGB2RGB),
        ("yuv422", "mono8", cv2.COLOR_YUV2GRAY_UYVY),
        ("yuv422_yuy2", "bgr8", cv2.COLOR_YUV2BGR_YUY2),
    ],
)
def test_colours_are_those_of_opencv(source, target, code):
    channels = {"yuv": 2, "bay": 1, "mon": 1}.get(source[:3], 4 if "a8" in source else 3)
    image = pixels(channels=channels)
    expected = cv2.cvtColor(image, code)
    result = BRIDGE.imgmsg_to_cv2(image_message(image, source), target)
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


def test_16_bit_is_scaled_to_8_and_rounded():
    image = pixels(np.uint16)
    result = BRIDGE.imgmsg_to_cv2(image_message(image, "mono16"), "mono8")
    np.testing.assert_array_equal(result, np.rint(image * (255 / 65535)).astype(np.uint8))


def test_8_bit_is_scaled_to_16():
    image = pixels()
    result = BRIDGE.imgmsg_to_cv2(image_message(image, "mono8"), "mono16")
    np.testing.assert_array_equal(result, image.astype(np.uint16) * 257)


def test_16_bit_colour_becomes_8_bit_grey():
    image = pixels(np.uint16, 3)
    result = BRIDGE.imgmsg_to_cv2(image_message(image, "rgb16"), "mono8")
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(result, np.rint(grey * (255 / 65535)).astype(np.uint8))


@pytest.mark.parametrize("encoding", ["nonsense", "", "mono32"])
def test_unknown_encodings_are_refused(encoding):
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(image_message(pixels(), encoding))


@pytest.mark.parametrize(
    ("source", "dtype", "channels", "target"),
    [
        ("8UC1", np.uint8, 1, "mono8"),  # a type without a meaning is not a colour
        ("32FC1", np.float32, 1, "mono8"),
        ("8UC3", np.uint8, 3, "8UC1"),
        ("mono8", np.uint8, 1, "nonsense"),
    ],
)
def test_conversions_without_sense_are_refused(source, dtype, channels, target):
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(image_message(pixels(dtype, channels), source), target)


def test_an_encoding_that_does_not_fit_the_array_is_refused():
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_imgmsg(pixels(), "bgr8")
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_imgmsg(pixels(np.uint16), "mono8")


def test_missing_data_is_refused():
    message = image_message(pixels(), "mono8")
    message.data = message.data[: H * W - 1]
    with pytest.raises(TypeError):  # of which CvBridgeError is one
        BRIDGE.imgmsg_to_cv2(message)


def test_only_arrays_become_messages():
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_imgmsg([[1, 2], [3, 4]])
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_compressed_imgmsg("image")


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_compression_comes_back_exactly(channels):
    image = pixels(channels=channels)
    message = BRIDGE.cv2_to_compressed_imgmsg(image, "png")
    assert message.format == "png"
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(message), image)


def test_jpeg_is_the_default_and_comes_back_nearly():
    image = np.full((32, 32, 3), (20, 120, 220), np.uint8)
    message = BRIDGE.cv2_to_compressed_imgmsg(image)
    assert message.format == "jpg"
    assert message.data.tobytes().startswith(b"\xff\xd8\xff")
    result = BRIDGE.compressed_imgmsg_to_cv2(message)
    assert np.abs(result.astype(int) - image).max() <= 3


def test_compressed_colours_can_be_converted():
    image = pixels(channels=3)
    message = BRIDGE.cv2_to_compressed_imgmsg(image, "png")
    np.testing.assert_array_equal(
        BRIDGE.compressed_imgmsg_to_cv2(message, "mono8"), cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    )
    np.testing.assert_array_equal(
        BRIDGE.compressed_imgmsg_to_cv2(message, "rgb8"), image[..., ::-1]
    )


def test_compressed_16_bit_keeps_its_depth():
    image = pixels(np.uint16)
    message = CompressedImage(format="png")
    message.data.frombytes(cv2.imencode(".png", image)[1].tobytes())
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(message), image)
