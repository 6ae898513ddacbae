"""When a map uses its IMU: the start, later corrections, and the end where the two disagree.

Until the start, and after a disagreement, the map is one of vision alone.
"""

from __future__ import annotations

import logging
from collections import deque

import numpy as np

from superglue_ros.back_end.imu import Imu
from superglue_ros.back_end.inertial_start import InertialState, estimate
from superglue_ros.back_end.optimiser import Adjustment
from superglue_ros.back_end.scene import Array, Scene, in_camera
from superglue_ros.errors import DataError
from superglue_ros.types import FrameId

log = logging.getLogger(__name__)

_SPACING_S = 0.25  # of the frames: in less time the poses' own errors hide the motion
_LONGEST_SPACING_S = 4.0
_LONGEST_GAP_S = 1.0  # beyond the spacing: over a gap in tracking the poses say nothing
_MOST_FRAMES = 40
_LEAST_FRAMES, _LEAST_SPAN_S = 5, 1.0
_POSE_PX = 0.5  # what a pose is known to, in pixels of the image
_SCALE_SIGMA = 0.03  # of its logarithm: what the motion must tell before the IMU is used
_GRAVITY_SIGMA_RAD = np.deg2rad(3.0)
_DISAGREEING = 4.0  # squared error per number; below one is usual
_RECENT = 30  # adjustments by vision alone, whose errors are the usual ones
_TIMES = 15  # adjustments in a row without the IMU: a knock disturbs fewer
_LONGEST_PREDICTION_S = 2.0
_PATIENCE_S = 5.0  # before it is said that there are no readings
_MOMENT_NS = 1_000_000
_CHECK = (
    "Check where it is (T_cam_imu), the time shift (timeshift_cam_imu), that its rates are in "
    "rad/s, and its noise"
)


class Inertial:
    """The use of an IMU in a map."""

    def __init__(self, imu: Imu) -> None:
        self.imu = imu
        self._tried_ns = 0  # the newest frame of the last attempt
        self._from_ns = 0  # frames before are not used
        self._corrected_s = 0.0  # span of the last correction
        self._without = 0  # adjustments in a row in which it had no part
        self._errors: deque[float] = deque(maxlen=_RECENT)  # of adjustments by vision alone
        self._said: set[str] = set()
        self._usable = True

    def update(self, scene: Scene, focal_px: float) -> bool:
        """Start to use the IMU, or correct scale and gravity each time the map is twice as long.

        Returns whether the map has changed and should be adjusted widely.
        """
        newest = max((frame.stamp_ns for frame in scene.poses), default=0)
        if not self._usable or newest - self._tried_ns < _SPACING_S * 1e9:
            return False
        self._tried_ns = newest
        frames = sorted(
            (frame for frame in (*scene.poses, *scene.attached) if frame.stamp_ns >= self._from_ns),
            key=lambda frame: frame.stamp_ns,
        )
        span = (newest - frames[0].stamp_ns) * 1e-9
        if span < max(_LEAST_SPAN_S, 2 * self._corrected_s) or not self._has_right_unit():
            return False
        state = self._estimate(scene, self._chosen(frames, span), focal_px)
        if state is None:
            return False
        self._corrected_s = span
        scene.rescale(state.scale)
        if scene.gravity is None:
            scene.bias = state.bias
        scene.gravity = state.gravity
        log.info("IMU: scale %.4f, known to %.1f %%", state.scale, 100 * state.log_scale_sigma)
        return True

    @property
    def usual_error(self) -> float:
        """Median error of the observations, in standard deviations, after adjustments by vision."""
        return float(np.median(self._errors)) if self._errors else float("inf")

    def judge(self, scene: Scene, adjustment: Adjustment | None) -> None:
        """Learn from adjustments without the IMU; give it up where it had no part in several.

        It may start anew with later frames.
        """
        if adjustment is None:
            return
        if adjustment.error_by_vision is not None:
            self._errors.append(adjustment.error_by_vision)
        if adjustment.with_imu or scene.gravity is None:
            self._without = 0
            return
        self._without += 1
        if self._without == _TIMES:
            newest = max(frame.stamp_ns for frame in scene.poses)
            if self.imu.covers(newest - _MOMENT_NS, newest):
                log.warning("the IMU contradicts the map: vision goes on alone. %s", _CHECK)
            else:
                extent = self.imu.readings.extent
                log.warning("the IMU's readings (%s) ended: vision goes on alone", extent)
            self.begin_anew(scene, newest)

    def begin_anew(self, scene: Scene, stamp_ns: int) -> None:
        """Let vision go on alone until frames from a stamp on are enough for a new start."""
        scene.gravity = None
        scene.motions.clear()
        self._without, self._corrected_s = 0, 0.0
        self._from_ns = stamp_ns

    def predict(self, scene: Scene, frame: FrameId) -> Array | None:
        """``T_world_camera`` (4, 4) of a frame without a pose, shortly after others.

        None where the IMU is not used, or does not cover the time since the last pose.
        """
        before = [one for one in scene.motions if one.stamp_ns < frame.stamp_ns]
        last = max(before, key=lambda one: one.stamp_ns, default=None)
        if last is None or scene.gravity is None or last not in scene.poses:
            return None
        if frame.stamp_ns - last.stamp_ns > _LONGEST_PREDICTION_S * 1e9:
            return None
        start = scene.poses[last], scene.motions[last]
        found = self.imu.predict(last.stamp_ns, frame.stamp_ns, *start, scene.gravity)
        return None if found is None else found[0]

    def _chosen(self, frames: list[FrameId], span: float) -> list[FrameId]:
        """The newest of ``frames``, some time apart, that the readings cover without a gap."""
        spacing = min(max(_SPACING_S, span / _MOST_FRAMES), _LONGEST_SPACING_S)
        chosen: list[FrameId] = []
        for frame in reversed(frames):
            if not chosen:
                if self.imu.covers(frame.stamp_ns - _MOMENT_NS, frame.stamp_ns):
                    chosen.append(frame)
                continue
            gap = chosen[-1].stamp_ns - frame.stamp_ns
            if gap < spacing * 1e9:
                continue
            covered = self.imu.covers(frame.stamp_ns, chosen[-1].stamp_ns)
            if gap > (spacing + _LONGEST_GAP_S) * 1e9 or not covered or len(chosen) == _MOST_FRAMES:
                break
            chosen.append(frame)
        if len(chosen) < 2 and span > _PATIENCE_S:
            self._say(
                f"the readings of the IMU ({self.imu.readings.extent}) do not cover the frames (to "
                f"{frames[-1].stamp_ns * 1e-9:.3f} s) without gaps of more than 50 ms: check that "
                f"both use one clock. The IMU is not used meanwhile"
            )
        return chosen[::-1]

    def _estimate(
        self, scene: Scene, frames: list[FrameId], focal_px: float
    ) -> InertialState | None:
        """The state along the frames if the motion tells it well enough, and all agrees."""
        if len(frames) < _LEAST_FRAMES:
            return None
        trajectory = scene.trajectory
        state = estimate(
            [frame.stamp_ns for frame in frames],
            np.stack([trajectory[frame] for frame in frames]),
            self.imu,
            pose_sigma=_POSE_PX / focal_px,
            depth=_median_depth(scene, frames),
            metric=any(edge.metric is not None for edge in scene.edges),
        )
        if state is None:
            return None
        if state.chi2 > _DISAGREEING and scene.gravity is None:
            self._say(f"the IMU contradicts the camera and is not used. {_CHECK}")
        if state.chi2 > _DISAGREEING:
            return None
        certain = state.log_scale_sigma < _SCALE_SIGMA
        return state if certain and state.gravity_sigma_rad < _GRAVITY_SIGMA_RAD else None

    def _has_right_unit(self) -> bool:
        try:
            self.imu.readings.check_unit()
        except DataError as error:
            self._say(f"{error}. The IMU is not used")
            self._usable = False
        return self._usable

    def _say(self, warning: str) -> None:
        """Warn once of each kind."""
        kind = warning[:40]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("%s", warning)


def _median_depth(scene: Scene, frames: list[FrameId]) -> float:
    """Of the landmarks in the frames that see any, in the unit of the map; 1 without any."""
    depths = []
    for frame in frames:
        if frame in scene.poses:
            points = scene.points(scene.tracks_of.get(frame, ()))
            depths += in_camera(scene.poses[frame], points)[:, 2].tolist()
    return float(np.median(depths)) if depths else 1.0
