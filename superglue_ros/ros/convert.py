"""Convert the messages of this package to types and back; stateless.

Every function raises an error of :mod:`superglue_ros.errors` that names what is wrong with the
message. Long arrays go out as :class:`array.array`, the fast path of rclpy's setters: an ndarray or
a list is more than ten times slower.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseWithCovariance, PoseWithCovarianceStamped
from numpy.typing import NDArray
from std_msgs.msg import Header

from superglue_ros.data.message_reading import frame_id_from_message
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping.keyframes import Keyframe
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
    known_depth,
)

# -- in ----------------------------------------------------------------------------------------


def features_from_message(message: FeaturesMessage, width: int, height: int) -> Features:
    """Keypoints of an outside front-end (``Features`` message).

    ``width`` and ``height`` are the image's. Raises :class:`FeaturesError`.
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
    sigma, tracks = columns["sigma_px"], columns["track_ids"]
    points = np.column_stack((columns["u"], columns["v"])).astype(np.float32)  # type: ignore[arg-type]
    return Features(
        keypoints=points,
        scores=scores,
        width=width,
        height=height,
        detector=message.detector,
        descriptors=None if descriptors is None else descriptors.astype(np.float32),
        sigma_px=sigma,  # type: ignore[arg-type]
        track_ids=None if tracks is None else tracks.astype(np.int64),  # type: ignore[arg-type]
    )


def keyframe_from_message(message: FeaturesMessage) -> Keyframe:
    """Another robot's frame (``Features`` message), not prepared.

    Raises :class:`FeaturesError` and :class:`CalibrationError`.
    """
    features = features_from_message(message, message.width, message.height)
    depth = _column(message, "depth", len(features), optional=True)
    depth_sigma = _column(message, "depth_sigma", len(features), optional=True)
    return Keyframe(
        id=frame_id_from_message(message.frame),
        features=features,
        prepared=None,
        camera=_camera_of(message),
        depth=None if depth is None else known_depth(depth),
        rectified=message.rectified,
        depth_sigma=None if depth_sigma is None else known_depth(depth_sigma),
    )


# -- out ---------------------------------------------------------------------------------------


def header_of(frame: FrameId) -> Header:
    """Header with the stamp and TF frame of an image."""
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
    message.pose = _uncertain(UncertainPose(pose.rotation, pose.translation, pose.covariance))
    return message


def map_pose_to_message(
    pose: UncertainPose, frame: FrameId, map_frame: str
) -> PoseWithCovarianceStamped:
    """``T_map_camera`` of a frame, in the TF frame ``map_frame``, with the image's stamp."""
    return PoseWithCovarianceStamped(
        header=_header(frame.stamp_ns, map_frame), pose=_uncertain(pose)
    )


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


# -- helpers -----------------------------------------------------------------------------------


def _column(message: Any, name: str, count: int, optional: bool) -> NDArray[Any] | None:
    """One per-keypoint array of a ``Features`` message; None if it is optional and empty."""
    values = np.asarray(getattr(message, name))
    if optional and not values.size:
        return None
    if len(values) != count:
        raise FeaturesError(
            f"keypoints have {len(values)} values of {name} for {count} of u: "
            f"give one per keypoint" + (", or none" if optional else "")
        )
    return values


def _camera_of(message: Any) -> Camera | None:
    """The calibration in a ``Features`` message, None if it has none."""
    if not message.k[0]:
        return None
    matrix = np.array(message.k, np.float64)
    return Camera(
        width=message.width,
        height=message.height,
        matrix=matrix,
        distortion=np.array(message.d, np.float64),
        model=message.distortion_model,
    )


def _descriptors(message: Any, count: int) -> NDArray[Any] | None:
    """Descriptors (N, D) of a ``Features`` message in their type, None if it has none."""
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


def _uncertain(pose: UncertainPose) -> PoseWithCovariance:
    return PoseWithCovariance(
        pose=pose_of(pose.rotation, pose.translation),
        covariance=np.asarray(pose.covariance, np.float64).reshape(36),
    )


def _header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=_stamp(stamp_ns), frame_id=frame_id)


def _array(code: str, values: NDArray[Any]) -> array.array[Any]:
    """``values`` as an array of ``code``: rclpy takes this type without checking each value."""
    dtype = {"f": np.float32, "i": np.int32, "q": np.int64, "B": np.uint8}[code]
    return array.array(code, np.ascontiguousarray(values, dtype).tobytes())
