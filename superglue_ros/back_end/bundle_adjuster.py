"""The example back-end: matches and relative poses in, poses and landmarks out.

    place the new frame -> observe -> triangulate -> bundle adjustment of the window
        -> frames that add nothing leave
    and where a loop closes: where should the frame be? -> pose graph -> merge
                             -> bundle adjustment of a wider window for the next frames

It uses only what is published on the topics: :class:`~superglue_ros.types.Matches` and
:class:`~superglue_ros.types.RelativePose` of one calibrated camera, and an IMU if there is one
(:mod:`superglue_ros.back_end.inertial`).
"""

from __future__ import annotations

import logging

import numpy as np

from superglue_ros.back_end import loops
from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.covisibility import keep_in_place, neighbourhood
from superglue_ros.back_end.culling import cull
from superglue_ros.back_end.imu import Imu
from superglue_ros.back_end.inertial import Inertial
from superglue_ros.back_end.metric_scale import MetricScale
from superglue_ros.back_end.optimiser import Adjustment, adjust
from superglue_ros.back_end.placement import USABLE, Seen, place, resect
from superglue_ros.back_end.scene import Array, Edge, Observation, Scene, inverse, pose_of
from superglue_ros.back_end.triangulation import position_covariance, triangulate_new
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.rotation import angle
from superglue_ros.types import (
    NO_TRACK,
    FrameId,
    Matches,
    MatchKind,
    PoseStatus,
    RelativePose,
)

log = logging.getLogger(__name__)

_SAME_TURN = np.deg2rad(4.0)  # two estimates of one rotation differ by less
_UNTIL_CONVERGED = 100  # iterations
# Of a window, observations are dropped that are farther off by this factor: the frames that are
# held may be wrong, and where the camera turns on the spot few observations carry the scale.
_DOUBTFUL = 2.0
_FAR_OFF = 20.0  # times max_error_px: no poor first guess explains such an error


class BundleAdjuster:
    """Bundle adjustment of a window of poses over a landmark map. Add every pair in topic order."""

    def __init__(self, config: BackEndConfig | None = None, imu: Imu | None = None) -> None:
        self.config = config or BackEndConfig()
        self._inertial = None if imu is None else Inertial(imu)
        self.scene = Scene()
        self.loops_closed = 0
        self._scale = MetricScale()
        self._settling = 0  # adjustments of more than the window that a loop still asks for

    def add(self, matches: Matches, relative: RelativePose, camera: Camera) -> bool:
        """Add one pair of frames; returns whether its query frame now has a pose.

        The first reference frame becomes the world. A pair that cannot place its query frame is
        kept as observations: a later frame may connect it.
        """
        if not self.scene.poses and self._can_begin(relative):
            self.scene.poses[matches.reference] = np.eye(4)
        usable = relative.status in USABLE
        if usable:
            self.scene.revive(matches.reference)
        if matches.query not in self.scene.poses:
            self._place(matches, relative, camera)
        elif usable and matches.kind is MatchKind.LOOP:
            believed = self._close_loop(matches, relative, camera)
            if not believed:
                return True
        self._observe(matches, camera)
        if matches.query not in self.scene.poses:
            return False
        if usable:
            self.scene.edges.append(_edge(relative))
        if triangulate_new(self.scene, matches.query, camera.focal, self.config):
            self._place_waiting(camera)
        return True

    def optimise(self, camera: Camera, covariance_of: FrameId | None = None) -> Adjustment | None:
        """Adjust the window of the newest frames; the frames most covisible with it stay fixed.

        For some frames after a loop the window is wider, so that the map settles while it is used.
        ``covariance_of`` names a frame of the window whose covariance is wanted as well.
        """
        if self._inertial is not None and self._inertial.update(self.scene, camera.focal):
            self._settling = self.config.loop_steps
        self._scale.update(self.scene)
        window = list(self.scene.poses)[-self.config.window :]
        frames, iterations = window, self.config.iterations
        limit = _DOUBTFUL * self.config.max_error_px
        if self._settling:
            frames, iterations = self._around(window), self.config.loop_iterations
            self._settling -= 1
            # Nothing is an outlier yet while the map still moves.
            limit = float("inf") if self._settling else self.config.max_error_px
        fixed = keep_in_place(self.scene, frames, self.config.fixed)
        if self.scene.gravity is not None:
            fixed += self._before(window, {*frames, *fixed})
        adjustment = self._adjust(frames, fixed, camera, iterations, limit, covariance_of)
        if self.config.cull_share < 1 and not self._settling:
            used = {edge.reference for edge in self.scene.edges if edge.query in window}
            spare = [frame for frame in fixed if frame not in used]
            cull(self.scene, spare, self.config.cull_share)
        return adjustment

    def optimise_all(self, camera: Camera) -> Adjustment | None:
        """Adjust all frames and landmarks until nothing improves, however long it takes."""
        self._settling = 0
        frames, limit = list(self.scene.poses), self.config.max_error_px
        return self._adjust(frames, [], camera, _UNTIL_CONVERGED, limit)

    def _before(self, window: list[FrameId], chosen: set[FrameId]) -> list[FrameId]:
        """The frame just before the window, from which the IMU leads into it."""
        first = min(frame.stamp_ns for frame in window)
        earlier = [frame for frame in self.scene.poses if frame.stamp_ns < first]
        last = max(earlier, key=lambda frame: frame.stamp_ns, default=None)
        return [] if last is None or last in chosen else [last]

    def _around(self, window: list[FrameId]) -> list[FrameId]:
        """The window and the frames nearest to it by shared landmarks, in the map's order."""
        count = max(self.config.loop_frames, len(window))
        near = set(neighbourhood(self.scene, window, count))
        return [frame for frame in self.scene.poses if frame in near]

    def _adjust(
        self,
        frames: list[FrameId],
        fixed: list[FrameId],
        camera: Camera,
        iterations: int,
        limit: float,
        covariance_of: FrameId | None = None,
    ) -> Adjustment | None:
        what = self.scene, frames, fixed, camera.focal, iterations, limit, covariance_of
        if self._inertial is None:
            return adjust(*what)
        adjustment = adjust(*what, self._inertial.imu, self._inertial.usual_error)
        self._inertial.judge(self.scene, adjustment)
        return adjustment

    def _can_begin(self, relative: RelativePose) -> bool:
        """Whether a map can begin with this pair: metric, or wide enough to triangulate from."""
        wide = relative.median_parallax_rad >= np.deg2rad(self.config.first_parallax_deg)
        return relative.status is PoseStatus.VALID and (relative.scale_known or wide)

    def _place(self, matches: Matches, relative: RelativePose, camera: Camera) -> None:
        """The query frame's first pose: from landmarks it sees, else along the relative pose."""
        if self.scene.poses and not self._knows(matches.reference):
            self._bridge(matches.reference)
        seen = self._seen(matches, camera)
        expected = self._predict(matches.query)
        placed = place(self.scene, relative, seen, camera.focal, self.config, expected)
        if placed is not None:
            self.scene.poses[matches.query] = placed.pose

    def _predict(self, frame: FrameId) -> Array | None:
        return None if self._inertial is None else self._inertial.predict(self.scene, frame)

    def _knows(self, frame: FrameId) -> bool:
        return frame in self.scene.poses or frame in self.scene.attached

    def _bridge(self, frame: FrameId) -> None:
        """Tracking was lost and continues from ``frame``: the IMU tells where, over a short gap.

        Without it the camera is assumed to be where it was.
        """
        last = next(reversed(self.scene.poses))
        pose = self._predict(frame)
        if pose is None:
            pose = self.scene.poses[last].copy()
            if self._inertial is not None:
                self._inertial.begin_anew(self.scene, frame.stamp_ns)
        self.scene.poses[frame] = pose
        self.scene.edges.append(Edge(reference=last, query=frame, bridge=True))

    def _place_waiting(self, camera: Camera) -> None:
        """Place earlier frames without a pose by the landmarks that now have a position."""
        for frame in [frame for frame in self.scene.tracks_of if frame not in self.scene.poses]:
            ids = sorted(self.scene.tracks_of[frame] & self.scene.landmarks.keys())
            if len(ids) < self.config.min_landmarks:
                continue
            rays = np.stack([self.scene.observations[track][frame].ray for track in ids])
            found = resect(self.scene.points(ids), rays, camera.focal, self.config)
            if found is not None:
                self.scene.poses[frame] = found[0]
                self._connect(frame, ids)

    def _connect(self, frame: FrameId, tracks: list[int]) -> None:
        """An edge from a frame placed late to the frame with which it shares most landmarks."""
        shared: dict[FrameId, int] = {}
        for track in tracks:
            for other in self.scene.placed_views(track):
                if other != frame:
                    shared[other] = shared.get(other, 0) + 1
        if shared:
            self.scene.edges.append(
                Edge(reference=max(shared, key=lambda other: shared[other]), query=frame)
            )

    def _seen(self, matches: Matches, camera: Camera) -> Seen:
        """Landmarks with a position that the query sees."""
        tracks = matches.track_ids.tolist()
        rays = np.asarray(camera.rays(matches.points_query), float)[:, :2]
        chosen = [
            k
            for k, track in enumerate(tracks)
            if track in self.scene.landmarks and np.isfinite(rays[k]).all()
        ]
        ids = [tracks[k] for k in chosen]
        return Seen(
            self.scene.points(ids),
            position_covariance(self.scene, ids),
            rays[chosen],
            matches.sigma_px[chosen] / np.sqrt(2) / camera.focal,
        )

    def _observe(self, matches: Matches, camera: Camera) -> None:
        """Both ends of every match that carries a landmark become observations of it.

        Observations far from the landmark's projection are skipped: a wrongly matched pair brings
        many, and together they would displace its frame.
        """
        ends = ((matches.reference, matches.points_ref), (matches.query, matches.points_query))
        # sigma_px is that of a match: the two keypoints share it.
        sigma = matches.sigma_px / np.sqrt(2) / camera.focal
        carrying = np.flatnonzero(matches.track_ids != NO_TRACK)
        limit = _FAR_OFF * self.config.max_error_px / camera.focal
        for frame, pixels in ends:
            if frame in self.scene.attached:
                continue
            rays = np.asarray(camera.rays(pixels), float)[:, :2]
            for k in carrying[np.isfinite(rays[carrying]).all(axis=1)]:
                track = int(matches.track_ids[k])
                if self.scene.error(frame, track, rays[k]) <= limit:
                    self.scene.observe(frame, track, Observation(rays[k], float(sigma[k])))

    def _close_loop(self, matches: Matches, relative: RelativePose, camera: Camera) -> bool:
        """Correct the drift that the loop shows, then merge the landmarks of both sides.

        Returns whether the loop was accepted. If not, the merged landmarks keep their recent
        observations and lose the older ones, as ids cannot be separated again.
        """
        merged = dict(zip(matches.merged_from.tolist(), matches.merged_into.tolist(), strict=True))
        loop = self._loop(matches, relative, camera, merged)
        if loop is None:
            log.info("loop to frame %d is too weak to close", matches.reference.id)
            self.scene.discard(merged.values())
            self.scene.merge(merged)
            return False
        off = inverse(self.scene.poses[matches.query]) @ loop.pose
        log.info(
            "loop %d -> %d: %.3f off, scale %.3f",
            matches.query.id,
            matches.reference.id,
            np.linalg.norm(off[:3, 3]),
            loop.scale.factor,
        )
        loops.close(self.scene, loop)
        self.loops_closed += 1
        self.scene.merge(merged)
        self._observe(matches, camera)
        if self.config.loop_iterations:
            self._settling = self.config.loop_steps
        return True

    def _loop(
        self,
        matches: Matches,
        relative: RelativePose,
        camera: Camera,
        merged: dict[int, int],
    ) -> loops.Loop | None:
        """The query frame's pose in the old part of the map.

        The landmarks must agree with the relative pose: on repeated textures the two differ.
        """
        if matches.reference not in self.scene.poses:
            return None
        seen = self._seen(matches, camera)
        placed = place(self.scene, relative, seen, camera.focal, self.config)
        if placed is None:
            return None
        strong = placed.scaled and placed.agreeing.sum() >= self.config.loop_landmarks
        if strong and self._agrees(placed.pose, relative):
            pose = placed.pose
        elif relative.scale_known:
            step = pose_of(relative.rotation, relative.translation)
            pose = self.scene.poses[matches.reference] @ step
        else:
            return None
        scale = loops.Scale()
        if not self.scene.metric:
            scale = loops.scale_of(self.scene, matches.query, pose, merged)
        return loops.Loop(matches.reference, matches.query, pose, scale)

    def _agrees(self, pose: Array, relative: RelativePose) -> bool:
        step = inverse(self.scene.poses[relative.reference]) @ pose
        turn = angle(step[:3, :3].T @ relative.rotation)
        length = np.linalg.norm(step[:3, 3]) * np.linalg.norm(relative.translation)
        along = float(step[:3, 3] @ relative.translation)
        opposite = relative.status is PoseStatus.VALID and along < 0.5 * length
        return turn < _SAME_TURN and not opposite


def _edge(relative: RelativePose) -> Edge:
    """The edge of a pair; metric if the pose is metric and has a covariance."""
    uncertainty = np.linalg.eigvalsh(relative.covariance)
    if not relative.scale_known or uncertainty[0] <= 0:
        return Edge(reference=relative.reference, query=relative.query)
    pose = pose_of(relative.rotation, relative.translation)
    return Edge(
        reference=relative.reference,
        query=relative.query,
        metric=pose,
        covariance=relative.covariance,
    )
