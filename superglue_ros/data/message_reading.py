"""Messages into core types: what the matcher published, and calibrations.

Works on any object with the fields of the messages: those of rclpy, and those of a bag read without
ROS.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import pose_from_quaternion
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.camera import Camera, camera_from_info
from superglue_ros.geometry.rotation import nearest
from superglue_ros.types import (
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    PoseMethod,
    PoseStatus,
    RelativePose,
)

Member = TypeVar("Member", bound=IntEnum)
_SHORTEST, _LONGEST = 0.5, 2.0  # norms of a quaternion; it is normalised


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def transform_from_message(pose: Any) -> NDArray[np.float64]:
    """The matrix (4, 4) of a ``geometry_msgs/Pose``. Raises :class:`FeaturesError`."""
    p, q = pose.position, pose.orientation
    position, turn = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    with np.errstate(over="ignore"):
        norm = np.linalg.norm(turn)  # NaN or infinite where a part of it is
    if not (np.isfinite(position).all() and _SHORTEST <= norm <= _LONGEST):
        raise FeaturesError(
            f"a pose has position {position.tolist()} and quaternion {turn.tolist()}: give finite "
            f"numbers and a quaternion of norm 1"
        )
    return pose_from_quaternion(position, turn)


def camera_from_message(message: Any, rectified: bool = False) -> Camera | None:
    """The camera of a ``sensor_msgs/CameraInfo``; see :func:`camera_from_info`."""
    roi = message.roi
    return camera_from_info(
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


def frame_id_from_message(message: Any) -> FrameId:
    """The frame that a ``FrameId`` message names."""
    return FrameId(
        id=int(message.id),
        stamp_ns=stamp_to_ns(message.stamp),
        frame_id=str(message.frame_id),
        robot=str(message.robot),
        camera_index=int(message.camera_index),
    )


def matches_from_message(message: Any) -> Matches:
    """Raises :class:`FeaturesError` on arrays of unequal length, an unknown kind or status, values
    that are not finite, and :class:`IdentifierError` on frames that cannot be.
    """
    columns = {
        name: _column(message, name, kind)
        for name, kind in (
            ("index_ref", np.int32),
            ("index_query", np.int32),
            ("u_ref", np.float32),
            ("v_ref", np.float32),
            ("u_query", np.float32),
            ("v_query", np.float32),
            ("scores", np.float32),
            ("inlier", np.uint8),
            ("sigma_px", np.float32),
            ("track_ids", np.int64),
        )
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise FeaturesError(f"arrays of Matches differ in length: {lengths}")
    for name in ("u_ref", "v_ref", "u_query", "v_query", "scores", "sigma_px"):
        if not np.isfinite(columns[name]).all():
            raise FeaturesError(f"{name} of Matches holds NaN or infinite values")
    for name in ("index_ref", "index_query"):
        if (columns[name] < 0).any():
            raise FeaturesError(f"{name} of Matches holds a negative index")
    merged_from = _column(message, "merged_from", np.int64)
    merged_into = _column(message, "merged_into", np.int64)
    if len(merged_from) != len(merged_into):
        raise FeaturesError(
            f"merged_from has {len(merged_from)} values, merged_into {len(merged_into)}"
        )
    return Matches(
        reference=frame_id_from_message(message.reference),
        query=frame_id_from_message(message.query),
        kind=_member(MatchKind, message.kind, "kind"),
        status=_member(MatchStatus, message.status, "status"),
        index_ref=columns["index_ref"],
        index_query=columns["index_query"],
        points_ref=np.stack([columns["u_ref"], columns["v_ref"]], axis=1),
        points_query=np.stack([columns["u_query"], columns["v_query"]], axis=1),
        scores=columns["scores"],
        inlier=columns["inlier"].astype(bool),
        sigma_px=columns["sigma_px"],
        track_ids=columns["track_ids"],
        rectified=bool(message.rectified),
        merged_from=merged_from,
        merged_into=merged_into,
    )


def pose_from_message(message: Any) -> RelativePose:
    """``T_ref_query`` with its covariance and verdict.

    Raises :class:`FeaturesError` on values that are not finite or of unknown meaning, and on a
    quaternion that is none.
    """
    pose = transform_from_message(message.pose.pose)
    covariance = np.array(message.pose.covariance, np.float64)
    if covariance.size != 36 or not np.isfinite(covariance).all():
        raise FeaturesError("the covariance of RelativePose holds values that are not finite")
    return RelativePose(
        reference=frame_id_from_message(message.reference),
        query=frame_id_from_message(message.query),
        status=_member(PoseStatus, message.status, "status"),
        method=_member(PoseMethod, message.method, "method"),
        rotation=nearest(pose[:3, :3]),
        translation=pose[:3, 3],
        covariance=covariance.reshape(6, 6),
        scale_known=bool(message.scale_known),
        num_matches=int(message.num_matches),
        num_inliers=int(message.num_inliers),
        inlier_threshold_px=float(message.inlier_threshold_px),
        median_epipolar_px=float(message.median_epipolar_px),
        median_parallax_rad=float(message.median_parallax_rad),
    )


def _member(kind: type[Member], value: Any, name: str) -> Member:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{int(member)} ({member.name})" for member in kind)
        raise FeaturesError(f"{name} {value!r} is unknown: known are {known}") from None


def _column(message: Any, name: str, kind: type) -> NDArray[Any]:
    try:
        return np.array(getattr(message, name), kind).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise FeaturesError(f"{name} of Matches cannot be read: {error}") from error
