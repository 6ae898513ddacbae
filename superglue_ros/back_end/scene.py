"""The back-end's map: poses, landmarks, and observations of landmarks in frames.

A frame that was culled (:mod:`superglue_ros.back_end.culling`) has no observations any more and
moves with a frame that was kept.

Poses are ``T_world_camera`` (4, 4) float64; landmarks (3,) float64 in the world; observations are
rays (x, y) at depth 1 with a standard deviation in the same unit. The world is the first camera;
its unit is the metre if relative poses are metric or an IMU has told it, else the first baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.types import FrameId

Array = NDArray[np.float64]

_STEEP = 0.95  # cosine of the angle to the vertical beyond which an axis has no direction on a map


@dataclass(frozen=True, eq=False)
class Observation:
    """Where a frame sees a landmark: ``ray`` (2,) at depth 1, and its standard deviation."""

    ray: Array
    sigma: float


@dataclass(frozen=True, eq=False)
class Edge:
    """Two frames whose relative pose was measured.

    ``metric`` (4, 4) is ``T_reference_query`` in metres with its ``covariance`` (6, 6) in the order
    and axes of :class:`~superglue_ros.types.RelativePose`; None where the scale is unknown.
    ``bridge`` marks a guess over a gap in tracking.
    """

    reference: FrameId
    query: FrameId
    metric: Array | None = None
    covariance: Array | None = None
    bridge: bool = False

    def inverse(self) -> Edge:
        """The same measurement with its ends exchanged."""
        turned = None if self._motion is None else self._motion.inverse()
        return self._between(self.query, self.reference, turned)

    def then(self, other: Edge) -> Edge:
        """From this edge's reference over its query, where ``other`` begins, to that one's query.

        Metric where both are; the errors of the two count as independent.
        """
        first, second = self._motion, other._motion
        joined = first @ second if first is not None and second is not None else None
        bridge = self.bridge or other.bridge
        return replace(self._between(self.reference, other.query, joined), bridge=bridge)

    @property
    def _motion(self) -> UncertainPose | None:
        if self.metric is None or self.covariance is None:
            return None
        return UncertainPose(self.metric[:3, :3], self.metric[:3, 3], self.covariance)

    def _between(self, reference: FrameId, query: FrameId, motion: UncertainPose | None) -> Edge:
        return Edge(
            reference=reference,
            query=query,
            metric=None if motion is None else pose_of(motion.rotation, motion.translation),
            covariance=None if motion is None else motion.covariance,
            bridge=self.bridge,
        )


@dataclass(frozen=True, eq=False)
class Attached:
    """A culled frame: ``pose`` (4, 4) ``T_anchor_camera`` in a frame that was kept, its anchor."""

    anchor: FrameId
    pose: Array


@dataclass(frozen=True, eq=False)
class Motion:
    """Of an IMU with a frame: ``velocity`` (3,) [m/s] in the world, ``bias`` (6,).

    The bias is that of the specific force [m/s^2], then of the angular rate [rad/s].
    """

    velocity: Array
    bias: Array


@dataclass
class Scene:
    """Poses in order of arrival, landmarks by track id, observations by both.

    ``attached``: the culled frames. ``gravity`` (3,) [m/s^2] in the world once an IMU has told it;
    from then on the unit is the metre, frames have ``motions``, and ``bias`` (6,) is the newest.
    """

    poses: dict[FrameId, Array] = field(default_factory=dict)
    landmarks: dict[int, Array] = field(default_factory=dict)
    observations: dict[int, dict[FrameId, Observation]] = field(default_factory=dict)
    tracks_of: dict[FrameId, set[int]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    attached: dict[FrameId, Attached] = field(default_factory=dict)
    gravity: Array | None = None
    motions: dict[FrameId, Motion] = field(default_factory=dict)
    bias: Array = field(default_factory=lambda: np.zeros(6))

    @property
    def trajectory(self) -> dict[FrameId, Array]:
        """``T_world_camera`` of all frames, the culled ones after the others."""
        culled = {
            frame: np.asarray(self.poses[one.anchor] @ one.pose)
            for frame, one in self.attached.items()
        }
        return self.poses | culled

    def revive(self, frame: FrameId) -> None:
        """Make a culled frame one of the others again, at its place in their order."""
        one = self.attached.pop(frame, None)
        if one is None:
            return
        order = list(self.poses.items())
        later = (i for i, (other, _) in enumerate(order) if other.stamp_ns > frame.stamp_ns)
        place = next(later, len(order))
        order.insert(place, (frame, np.asarray(self.poses[one.anchor] @ one.pose)))
        self.poses = dict(order)
        self.edges.append(Edge(reference=one.anchor, query=frame))

    @property
    def metric(self) -> bool:
        """Whether the unit is the metre: an IMU has told it, or any relative pose is metric."""
        return self.gravity is not None or any(edge.metric is not None for edge in self.edges)

    @property
    def level(self) -> Array:
        """``T_map_world`` (4, 4): z up, x where the world's z points, y to the left.

        Without an IMU the first camera is taken for level.
        """
        down = np.array([0.0, 1, 0]) if self.gravity is None else self.gravity
        up = -down / np.linalg.norm(down)
        # A camera that looks straight up or down points with its upper edge.
        forward = np.array([0.0, 0, 1] if abs(up[2]) < _STEEP else [0.0, -1, 0])
        left = np.cross(up, forward)
        left /= np.linalg.norm(left)
        return pose_of(np.stack((np.cross(left, up), left, up)), np.zeros(3))

    def rescale(self, factor: float) -> None:
        """Make the map ``factor`` times as large, about the origin of the world."""
        for frame, pose in self.poses.items():
            self.poses[frame] = scaled(pose, factor)
        for track in self.landmarks:
            self.landmarks[track] = factor * self.landmarks[track]
        for frame, one in self.attached.items():
            self.attached[frame] = replace(one, pose=scaled(one.pose, factor))
        for frame, motion in self.motions.items():
            self.motions[frame] = replace(motion, velocity=factor * motion.velocity)

    def observe(self, frame: FrameId, track: int, observation: Observation) -> None:
        """Add one observation; the first one of a landmark in a frame is kept."""
        self.observations.setdefault(track, {}).setdefault(frame, observation)
        self.tracks_of.setdefault(frame, set()).add(track)

    def error(self, frame: FrameId, track: int, ray: Array) -> float:
        """Reprojection error at depth 1 of a landmark that ``frame`` sees along ``ray`` (2,).

        0 if unknown, infinite behind the camera.
        """
        pose, position = self.poses.get(frame), self.landmarks.get(track)
        if pose is None or position is None:
            return 0.0
        x, y, depth = in_camera(pose, position[None])[0]
        if depth <= 0:
            return float("inf")
        return float(np.hypot(x / depth - ray[0], y / depth - ray[1]))

    def forget(self, frame: FrameId, track: int) -> None:
        """Drop one observation, and the landmark once fewer than two are left."""
        del self.observations[track][frame]
        self.tracks_of[frame].discard(track)
        if len(self.observations[track]) < 2:
            self.landmarks.pop(track, None)
        if not self.observations[track]:
            del self.observations[track]

    def discard(self, tracks: Iterable[int]) -> None:
        """Drop landmarks with all their observations."""
        for track in tracks:
            for frame in self.observations.pop(track, {}):
                self.tracks_of[frame].discard(track)
            self.landmarks.pop(track, None)

    def merge(self, merged: Mapping[int, int]) -> None:
        """Merge landmarks into others; the surviving landmark keeps its position."""
        for old, new in merged.items():
            for frame, observation in self.observations.pop(old, {}).items():
                self.tracks_of[frame].discard(old)
                self.observe(frame, new, observation)
            position = self.landmarks.pop(old, None)
            if position is not None:
                self.landmarks.setdefault(new, position)

    def placed_views(self, track: int) -> dict[FrameId, Observation]:
        """The observations of a landmark from frames that have a pose."""
        return {f: o for f, o in self.observations.get(track, {}).items() if f in self.poses}

    def tracks_seen_by(self, frames: Iterable[FrameId]) -> set[int]:
        """All landmarks that any of the frames observes."""
        return set().union(*(self.tracks_of.get(frame, set()) for frame in frames))

    def points(self, tracks: Iterable[int]) -> Array:
        """(K, 3) positions of those of ``tracks`` that have one."""
        found = [self.landmarks[track] for track in tracks if track in self.landmarks]
        return np.array(found, float).reshape(-1, 3)


def pose_of(rotation: Array, translation: Array) -> Array:
    """(4, 4) from rotation (3, 3) and translation (3,)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def scaled(pose: Array, factor: float) -> Array:
    """A pose (4, 4) whose translation is ``factor`` times as long."""
    return pose_of(pose[:3, :3], factor * pose[:3, 3])


def inverse(pose: Array) -> Array:
    """The inverse of a rigid motion (4, 4)."""
    rotation = pose[:3, :3].T
    return pose_of(rotation, -rotation @ pose[:3, 3])


def in_camera(pose: Array, points: Array) -> Array:
    """World points (K, 3) in the frame of a camera at ``pose``."""
    return np.asarray((points - pose[:3, 3]) @ pose[:3, :3])
