"""Messages to types and back: stateless, and the only place that knows both.

Every function raises an error of :mod:`superglue_ros.errors` that names what is wrong with the
message. Long arrays go out as :class:`array.array`, the fast path of rclpy's setters: an ndarray or
a list is more than ten times slower.
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from cv_bridge import CvBridge, CvBridgeError
from geometry_msgs.msg import Pose, PoseWithCovariance
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from superglue_ros.errors import CalibrationError, FeaturesError, ImageError
from superglue_ros.geometry.camera import Camera, camera_from_info
from superglue_ros.keyframes import Keyframe
from superglue_ros.message_reading import frame_id_from_message
from superglue_ros.msg import Features as FeaturesMessage
from superglue_ros.msg import FrameId as FrameIdMessage
from superglue_ros.msg import Matches as MatchesMessage
from superglue_ros.msg import RelativePose as RelativePoseMessage
from superglue_ros.types import (
    Features,
    FloatArray,
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    RelativePose,
)

_BRIDGE = CvBridge()

# Bytes per pixel of sensor_msgs' image encodings; bayer and type-and-channels ones follow below.
_BYTES_PER_PIXEL = {
    "mono8": 1, "mono16": 2,
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4,
    "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8,
    "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2, "yuyv": 2,
    "8UC1": 1, "8UC3": 3, "8UC4": 4,
}  # fmt: skip
_BYTES_PER_PIXEL |= {
    f"bayer_{pattern}{bits}": bits // 8
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
# Without a meaning in colours, cv_bridge has to be told which one is meant.
_MEANING = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}
_BYTES_PER_PIXEL |= {"16UC1": 2}
_DEPTH_TYPES = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


# -- in ----------------------------------------------------------------------------------------


def image_to_grey(message: Image, max_pixels: int) -> NDArray[np.uint8]:
    """A raw image as grey (H, W) uint8. Raises :class:`ImageError`."""
    if message.encoding not in _BYTES_PER_PIXEL:
        raise ImageError(
            f"image encoding {message.encoding!r} is unknown: "
            f"known are {', '.join(sorted(_BYTES_PER_PIXEL))}"
        )
    pixel_bytes = _BYTES_PER_PIXEL[message.encoding]
    _check_layout(message, "image", pixel_bytes, max_pixels)
    step, data = message.width * pixel_bytes, message.data
    if message.step != step:  # cv_bridge reads a step in whole pixels: other padding would skew
        rows = np.frombuffer(data, np.uint8)[: message.step * message.height]
        data = array.array("B", rows.reshape(message.height, -1)[:, :step].tobytes())
    if message.step != step or message.encoding in _MEANING:
        message = Image(
            header=message.header, height=message.height, width=message.width,
            encoding=_MEANING.get(message.encoding, message.encoding),
            is_bigendian=message.is_bigendian, step=step, data=data,
        )  # fmt: skip
    try:
        grey = _BRIDGE.imgmsg_to_cv2(message, desired_encoding="mono8")
    except (CvBridgeError, cv2.error, ValueError) as error:
        raise ImageError(
            f"image of encoding {message.encoding!r} cannot be read: {error}"
        ) from error
    return np.ascontiguousarray(grey, np.uint8).reshape(message.height, message.width)


def compressed_to_grey(message: CompressedImage, max_pixels: int) -> NDArray[np.uint8]:
    """A compressed image (JPEG, PNG, ...) as grey (H, W) uint8. Raises :class:`ImageError`."""
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise ImageError("compressed image has no data")
    try:
        # Not turned as the file may ask: the calibration holds for the sensor's rows and columns.
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"compressed image cannot be decoded: {error}") from error
    if grey is None:
        raise ImageError(
            f"compressed image ({message.format!r}, {data.size} bytes) cannot be decoded: "
            f"it must be a whole JPEG, PNG or another format of OpenCV"
        )
    _check_size(grey.shape[1], grey.shape[0], "image", max_pixels)
    return np.asarray(grey, np.uint8)


def depth_to_metres(message: Image, width: int, height: int) -> FloatArray:
    """A depth image, 16UC1 in millimetres or 32FC1 in metres, as (H, W) float32 metres.

    Unknown depth stays 0 or NaN. Raises :class:`ImageError`.
    """
    if message.encoding not in _DEPTH_TYPES:
        raise ImageError(
            f"depth encoding {message.encoding!r} is unknown: give 16UC1 (mm) or 32FC1 (m)"
        )
    kind = np.dtype(_DEPTH_TYPES[message.encoding])
    _check_layout(message, "depth", kind.itemsize, max_pixels=None)
    if (message.width, message.height) != (width, height):
        raise ImageError(
            f"depth is {message.width}x{message.height} but the image is {width}x{height}: "
            f"register the depth to the image"
        )
    rows = np.frombuffer(message.data, np.uint8)[: message.step * message.height]
    rows = rows.reshape(message.height, message.step)[:, : message.width * kind.itemsize]
    order = kind.newbyteorder(">" if message.is_bigendian else "<")
    depth = np.ascontiguousarray(rows).view(order)
    if kind == np.uint16:
        return depth.astype(np.float32) * np.float32(0.001)
    return depth.astype(np.float32)


def camera_info_to_camera(
    message: CameraInfo, width: int, height: int, rectified: bool
) -> Camera | None:
    """Calibration for an image of ``width`` x ``height``; None where it is uncalibrated (K[0] = 0).

    Raises :class:`CalibrationError` on values that make no camera, or one of another size.
    """
    if not message.k[0]:
        return None
    roi = message.roi
    camera = camera_from_info(
        message.width,
        message.height,
        message.k,
        message.d,
        message.p,
        model=message.distortion_model,
        binning_x=message.binning_x,
        binning_y=message.binning_y,
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        rectified=rectified,
    )
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise CalibrationError(
            f"camera_info is for images of {camera.width}x{camera.height} but the image is "
            f"{width}x{height}: publish the calibration of this size, with its binning and roi"
        )
    return camera


def features_from_message(
    message: FeaturesMessage, width: int, height: int, max_keypoints: int
) -> tuple[Features, int]:
    """Keypoints of an outside front-end (``Features`` message), and how many were cut.

    Of more than ``max_keypoints`` the best by score are kept, in their order. ``width`` and
    ``height`` are the image's. Raises :class:`FeaturesError`.
    """
    if (message.width, message.height) not in ((width, height), (0, 0)):
        raise FeaturesError(
            f"keypoints are of a {message.width}x{message.height} image but the image is "
            f"{width}x{height}: send pixels of the original image"
        )
    count = len(message.u)
    columns = {
        name: _column(message, name, count, optional=name not in ("u", "v"))
        for name in ("u", "v", "scores", "sigma_px", "track_ids")
    }
    descriptors = _descriptors(message, count)
    scores = columns["scores"]
    scores = np.ones(count, np.float32) if scores is None else scores
    kept = _best(scores, max_keypoints)
    sigma, tracks = columns["sigma_px"], columns["track_ids"]
    points = np.column_stack((columns["u"], columns["v"])).astype(np.float32)  # type: ignore[arg-type]
    features = Features(
        points[kept],
        scores[kept],
        width,
        height,
        message.detector,
        None if descriptors is None else descriptors[kept].astype(np.float32),
        None if sigma is None else sigma[kept],  # type: ignore[arg-type]
        None if tracks is None else tracks[kept].astype(np.int64),  # type: ignore[arg-type]
    )
    return features, count - len(features)


def keyframe_from_message(
    message: FeaturesMessage, max_keypoints: int
) -> tuple[Keyframe, NDArray[np.intp]]:
    """Another robot's frame (``Features`` message), and the places of its keypoints in the message.

    They differ where there are more than ``max_keypoints``. Raises :class:`FeaturesError` and
    :class:`CalibrationError`.
    """
    width, height = message.width, message.height
    features, _ = features_from_message(message, width, height, max_keypoints)
    count = len(message.u)
    scores = _column(message, "scores", count, optional=True)
    kept = _best(np.ones(count, np.float32) if scores is None else scores, max_keypoints)
    depth = _column(message, "depth", count, optional=True)
    depth_sigma = _column(message, "depth_sigma", count, optional=True)
    keyframe = Keyframe(
        frame_id_from_message(message.frame),
        features,
        None,
        _camera_of(message),
        None if depth is None else _known(depth[kept]),
        rectified=message.rectified,
        depth_sigma=None if depth_sigma is None else _known(depth_sigma[kept]),
    )
    return keyframe, kept


# -- out ---------------------------------------------------------------------------------------


def header_of(frame: FrameId) -> Header:
    """Stamp and TF frame of an image, as they came."""
    return _header(frame.stamp_ns, frame.frame_id)


def frame_id_to_message(frame: FrameId) -> FrameIdMessage:
    """``FrameId`` message of a frame."""
    return FrameIdMessage(
        robot=frame.robot,
        camera_index=frame.camera_index,
        id=frame.id,
        stamp=_stamp(frame.stamp_ns),
        frame_id=frame.frame_id,
    )


def features_to_message(
    features: Features,
    frame: FrameId,
    rectified: bool,
    descriptors: str = "none",
    camera: Camera | None = None,
    depth: FloatArray | None = None,
    depth_sigma: FloatArray | None = None,
) -> FeaturesMessage:
    """``Features`` message; ``descriptors`` none, float16 or float32; ``depth`` (N,) metres."""
    message = FeaturesMessage(
        header=header_of(frame),
        frame=frame_id_to_message(frame),
        width=features.width,
        height=features.height,
        rectified=rectified,
        detector=features.detector,
    )
    message.u = _array("f", features.keypoints[:, 0])
    message.v = _array("f", features.keypoints[:, 1])
    message.scores = _array("f", features.scores)
    message.sigma_px = _array("f", features.sigma_px)
    message.track_ids = _array("q", features.track_ids)
    if camera is not None:
        message.distortion_model = camera.model
        message.d = camera.distortion.tolist()
        message.k = camera.matrix.ravel().tolist()
    if depth is not None:
        message.depth = _array("f", depth)
    if depth_sigma is not None:
        message.depth_sigma = _array("f", depth_sigma)
    if descriptors != "none" and features.descriptors is not None:
        half = descriptors == "float16"
        kind = FeaturesMessage.F16 if half else FeaturesMessage.F32
        message.descriptor_type = kind
        message.descriptor_dim = features.descriptor_dim
        message.descriptors = _array(
            "B", features.descriptors.astype("<f2" if half else "<f4").view(np.uint8)
        )
    return message


def matches_to_message(matches: Matches) -> MatchesMessage:
    """``Matches`` message of a pair of frames; the header is the query image's."""
    message = MatchesMessage(
        header=header_of(matches.query),
        reference=frame_id_to_message(matches.reference),
        query=frame_id_to_message(matches.query),
        kind=int(matches.kind),
        status=int(matches.status),
        rectified=matches.rectified,
    )
    message.index_ref = _array("i", matches.index_ref)
    message.index_query = _array("i", matches.index_query)
    message.u_ref = _array("f", matches.points_ref[:, 0])
    message.v_ref = _array("f", matches.points_ref[:, 1])
    message.u_query = _array("f", matches.points_query[:, 0])
    message.v_query = _array("f", matches.points_query[:, 1])
    message.scores = _array("f", matches.scores)
    message.inlier = _array("B", matches.inlier)
    message.sigma_px = _array("f", matches.sigma_px)
    message.track_ids = _array("q", matches.track_ids)
    message.merged_from = _array("q", matches.merged_from)
    message.merged_into = _array("q", matches.merged_into)
    return message


def error_to_message(query: FrameId) -> MatchesMessage:
    """``Matches`` message of a frame that was refused: status ERROR, no reference, no matches."""
    return MatchesMessage(
        header=header_of(query),
        query=frame_id_to_message(query),
        kind=int(MatchKind.KEYFRAME),
        status=int(MatchStatus.ERROR),
    )


def pose_to_message(pose: RelativePose) -> RelativePoseMessage:
    """``RelativePose`` message: ``T_ref_query`` in the reference camera's frame."""
    message = RelativePoseMessage(
        header=_header(pose.query.stamp_ns, pose.reference.frame_id),
        reference=frame_id_to_message(pose.reference),
        query=frame_id_to_message(pose.query),
        scale_known=pose.scale_known,
        method=int(pose.method),
        status=int(pose.status),
        num_matches=pose.num_matches,
        num_inliers=pose.num_inliers,
        inlier_threshold_px=float(pose.inlier_threshold_px),
        median_epipolar_px=float(pose.median_epipolar_px),
        median_parallax_rad=float(pose.median_parallax_rad),
    )
    message.pose = PoseWithCovariance(
        pose=pose_of(pose.rotation, pose.translation),
        covariance=np.asarray(pose.covariance, np.float64).reshape(36),
    )
    return message


def pose_of(rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> Pose:
    """``Pose`` of a rotation matrix (3, 3) and a translation (3,)."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = (float(t) for t in translation)
    x, y, z, w = quaternion(rotation)
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = x, y, z, w
    return pose


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Unit quaternion (x, y, z, w), w >= 0, of a rotation matrix (3, 3).

    The eigenvector method (Bar-Itzhack, 2000): accurate at every angle, also for matrices that are
    rotations only up to rounding.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.asarray(rotation, np.float64)
    symmetric = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    _, vectors = np.linalg.eigh(symmetric)  # reads the lower triangle
    best = vectors[:, -1] if vectors[3, -1] >= 0 else -vectors[:, -1]
    return float(best[0]), float(best[1]), float(best[2]), float(best[3])


def image_to_message(image: NDArray[np.uint8], frame: FrameId) -> Image:
    """A BGR picture (H, W, 3) uint8 with the stamp and frame of the image it shows."""
    message = _BRIDGE.cv2_to_imgmsg(image, encoding="bgr8")
    message.header = header_of(frame)
    return message


# -- helpers -----------------------------------------------------------------------------------


def _check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    if not width or not height:
        raise ImageError(f"{name} has zero size: {width}x{height}")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} of {width}x{height} has more than {max_pixels} pixels: "
            f"send smaller images or raise limits.max_pixels"
        )


def _check_layout(message: Image, name: str, pixel_bytes: int, max_pixels: int | None) -> None:
    _check_size(message.width, message.height, name, max_pixels)
    if message.step < message.width * pixel_bytes:
        raise ImageError(
            f"{name} has step {message.step}, but a row of {message.width} pixels of "
            f"{message.encoding} takes {message.width * pixel_bytes} bytes"
        )
    if message.step % pixel_bytes and message.encoding.endswith(("16", "16UC1", "32FC1")):
        raise ImageError(
            f"{name} has step {message.step}, not a multiple of the {pixel_bytes} bytes of a pixel"
        )
    if len(message.data) < message.step * message.height:
        raise ImageError(
            f"{name} has {len(message.data)} bytes of data, but {message.height} rows of step "
            f"{message.step} take {message.step * message.height}"
        )


def _column(message: Any, name: str, count: int, optional: bool) -> NDArray[Any] | None:
    """One per-keypoint array of a ``Features`` message; None where an optional one is empty."""
    values = np.asarray(getattr(message, name))
    if optional and not values.size:
        return None
    if len(values) != count:
        raise FeaturesError(
            f"keypoints have {len(values)} values of {name} for {count} of u: "
            f"give one per keypoint" + (", or none" if optional else "")
        )
    return values


def _best(scores: NDArray[Any], limit: int) -> NDArray[np.intp]:
    """Places of the best ``limit`` keypoints, in their order."""
    return np.sort(np.argsort(-scores, kind="stable")[:limit])


def _known(depth: NDArray[Any]) -> FloatArray:
    """Depths or their deviations as float32, 0 where they are no positive number."""
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _camera_of(message: Any) -> Camera | None:
    """The calibration in a ``Features`` message, None where it brings none."""
    if not message.k[0]:
        return None
    matrix = np.array(message.k, np.float64)
    return Camera(
        message.width,
        message.height,
        matrix,
        np.array(message.d, np.float64),
        message.distortion_model,
    )


def _descriptors(message: Any, count: int) -> NDArray[Any] | None:
    """Descriptors (N, D) of a ``Features`` message in the type they came in, None without."""
    if not message.descriptor_dim:
        return None
    types = {FeaturesMessage.F32: "<f4", FeaturesMessage.F16: "<f2"}
    if message.descriptor_type not in types:
        raise FeaturesError(
            f"descriptor_type {message.descriptor_type} is unknown: give F32 or F16"
        )
    kind = np.dtype(types[message.descriptor_type])
    expected = count * message.descriptor_dim * kind.itemsize
    if len(message.descriptors) != expected:
        raise FeaturesError(
            f"descriptors have {len(message.descriptors)} bytes, but {count} keypoints of "
            f"{message.descriptor_dim} values of {kind.itemsize} bytes take {expected}"
        )
    return np.frombuffer(message.descriptors, kind).reshape(count, message.descriptor_dim)


def _stamp(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def _header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=_stamp(stamp_ns), frame_id=frame_id)


def _array(code: str, values: NDArray[Any]) -> array.array[Any]:
    """``values`` as an array of ``code``: the type that rclpy takes over without checking each."""
    dtype = {"f": np.float32, "i": np.int32, "q": np.int64, "B": np.uint8}[code]
    return array.array(code, np.ascontiguousarray(values, dtype).tobytes())
