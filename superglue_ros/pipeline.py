"""The middle-end from end to end: a frame in, matches and relative poses to keyframes out.

    image -> features -> matches against keyframes -> two-view geometry -> keyframe or not

This file tells the whole story (figure 3 of the SuperGlue paper, and what a SLAM system needs
around it); every step is one call into the module of that name.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np

from superglue_ros.config import Config
from superglue_ros.device import resolve_device
from superglue_ros.frontends import FrontEnd, make_front_end
from superglue_ros.geometry.two_view import TwoViewGeometry, estimate_two_view, no_pose
from superglue_ros.keyframes import Candidate, Keyframe, KeyframeStore, Overlap
from superglue_ros.matching import Matcher, make_matcher
from superglue_ros.types import (
    Correspondences,
    Features,
    FloatArray,
    Frame,
    FrameId,
    Matches,
    MatchStatus,
    RelativePose,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSeconds:
    """Wall time of the stages of one frame, in seconds."""

    extract: float
    match: float
    geometry: float

    @property
    def total(self) -> float:
        """All stages together, in seconds."""
        return self.extract + self.match + self.geometry


@dataclass(frozen=True, eq=False)
class FramePair:
    """A frame against one keyframe."""

    matches: Matches
    pose: RelativePose


@dataclass(frozen=True, eq=False)
class FrameResult:
    """All that came out of one frame. ``pairs`` is empty where there was no keyframe yet."""

    frame_id: FrameId
    features: Features
    pairs: tuple[FramePair, ...]
    is_keyframe: bool
    reset: bool
    seconds: StageSeconds


class Pipeline:
    """Matches every frame against a window of keyframes. One thread at a time may use it.

    ``front_end`` and ``matcher`` default to those that ``config`` names.
    """

    def __init__(
        self,
        config: Config | None = None,
        front_end: FrontEnd | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        self.config = config or Config()
        device = resolve_device(self.config.device)
        self.front_end = front_end or make_front_end(self.config, device)
        self.matcher = matcher or make_matcher(self.config, device)
        self.keyframes = KeyframeStore(self.config.keyframes)
        self._last_stamp_ns: dict[int, int] = {}

    def configure(self, config: Config) -> None:
        """Take new settings, from the next frame on; the fixed ones must be as they were."""
        self.config = config
        self.front_end.configure(config.front_end)
        self.matcher.configure(config.matcher)
        self.keyframes.config = config.keyframes

    def reset(self) -> None:
        """Forget all keyframes; frame ids are the caller's and go on counting."""
        self.keyframes.clear()
        self._last_stamp_ns.clear()

    def process(self, frame: Frame) -> FrameResult:
        """Features, matches and poses of one frame; keeps it as a keyframe where it adds something.

        A stamp earlier than the previous one of the same camera (a bag that loops) drops all
        keyframes first. Raises an error of :mod:`superglue_ros.errors` on bad input and stays as
        it was, ready for the next frame.
        """
        reset = self._time_jumped_back(frame.id)
        if reset:
            self.reset()
        started = time.perf_counter()
        features = self._extract(frame)
        prepared = self.matcher.prepare(features)
        extracted = time.perf_counter()
        query = Keyframe(
            frame.id,
            features,
            prepared,
            frame.camera,
            depth_at(frame, features),
            rectified=frame.rectified,
        )
        candidates = self.keyframes.neighbours()
        assignments = self.matcher.match([c.keyframe.prepared for c in candidates], prepared)
        matched = time.perf_counter()
        pairs = tuple(
            self._verify(candidate, query, assignment)
            for candidate, assignment in zip(candidates, assignments, strict=True)
        )
        is_keyframe = self.keyframes.should_insert(features, self._overlap(query, pairs))
        if is_keyframe:
            self.keyframes.insert(query)
        self.keyframes.pass_by(query)
        self._last_stamp_ns[frame.id.camera_index] = frame.id.stamp_ns
        verified = time.perf_counter()
        seconds = StageSeconds(extracted - started, matched - extracted, verified - matched)
        return FrameResult(frame.id, features, pairs, is_keyframe, reset, seconds)

    def _time_jumped_back(self, frame_id: FrameId) -> bool:
        last = self._last_stamp_ns.get(frame_id.camera_index)
        return last is not None and frame_id.stamp_ns < last

    def _extract(self, frame: Frame) -> Features:
        """Features of the frame: our own, or those an outside front-end sent with it."""
        outside = frame.keypoints
        if outside is None:
            return self.front_end.extract(frame.image)
        outside = self._cap(outside)
        if outside.descriptors is not None and outside.descriptor_dim:
            return outside
        described = self.front_end.describe(frame.image, outside.keypoints)
        return replace(
            described,
            scores=outside.scores,
            sigma_px=outside.sigma_px,
            track_ids=outside.track_ids,
        )

    def _cap(self, features: Features) -> Features:
        limit = self.config.front_end.max_keypoints
        if len(features) <= limit:
            return features
        log.warning("%d keypoints given, the best %d are used", len(features), limit)
        best = np.sort(np.argsort(-features.scores, kind="stable")[:limit])
        return features.select(best)

    def _overlap(self, query: Keyframe, pairs: tuple[FramePair, ...]) -> Overlap | None:
        """What the frame still sees of the reference keyframe, which comes first in ``pairs``."""
        reference = self.keyframes.reference
        if reference is None:
            return None
        pair = pairs[0]
        return Overlap.measure(
            reference.features,
            query.features,
            pair.matches.index_query,
            pair.pose.median_parallax_rad,
        )

    def _verify(
        self, candidate: Candidate, query: Keyframe, found: Correspondences
    ) -> FramePair:
        reference = candidate.keyframe
        points_ref = reference.features.keypoints[found.index_ref]
        points_query = query.features.keypoints[found.index_query]
        sigma = np.hypot(
            reference.features.sigma_px[found.index_ref], query.features.sigma_px[found.index_query]
        ).astype(np.float32)
        geometry = self._geometry(reference, query, found, points_ref, points_query, sigma)
        matches = Matches(
            reference.id,
            query.id,
            candidate.kind,
            self._status(reference.features, query.features, found),
            found.index_ref,
            found.index_query,
            points_ref,
            points_query,
            found.scores,
            geometry.inliers,
            sigma,
            query.features.track_ids[found.index_query],
            query.rectified,
        )
        pose = RelativePose(
            reference.id,
            query.id,
            geometry.status,
            geometry.method,
            geometry.rotation,
            geometry.translation,
            geometry.covariance,
            geometry.scale_known,
            len(found),
            int(geometry.inliers.sum()),
            geometry.threshold_px,
            geometry.median_epipolar_px,
            geometry.median_parallax_rad,
        )
        return FramePair(matches, pose)

    def _geometry(
        self,
        reference: Keyframe,
        query: Keyframe,
        found: Correspondences,
        points_ref: FloatArray,
        points_query: FloatArray,
        sigma: FloatArray,
    ) -> TwoViewGeometry:
        if reference.camera is None or query.camera is None:
            return no_pose(len(found), self.config.geometry)
        return estimate_two_view(
            points_ref,
            points_query,
            reference.camera,
            query.camera,
            self.config.geometry,
            scores=found.scores,
            sigma_px=sigma,
            depth_ref=None if reference.depth is None else reference.depth[found.index_ref],
        )

    def _status(self, reference: Features, query: Features, found: Correspondences) -> MatchStatus:
        if not len(reference):
            return MatchStatus.NO_KEYPOINTS_REFERENCE
        if not len(query):
            return MatchStatus.NO_KEYPOINTS_QUERY
        if len(found) < self.config.geometry.min_matches:
            return MatchStatus.FEW
        return MatchStatus.OK


def depth_at(frame: Frame, features: Features) -> FloatArray | None:
    """Depth in metres at every keypoint (N,), 0 where unknown; None where the frame has no depth.

    The nearest pixel's value: interpolation would invent surfaces across depth edges.
    """
    if frame.depth is None:
        return None
    height, width = frame.depth.shape
    pixels = np.rint(features.keypoints).astype(np.intp)
    x, y = pixels[:, 0].clip(0, width - 1), pixels[:, 1].clip(0, height - 1)
    depth = frame.depth[y, x]
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)
