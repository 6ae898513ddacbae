"""One matched pair of frames: correspondences in, matches and relative pose with a verdict out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config, GeometryConfig
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.geometry.rolling_shutter import rotation_shift
from superglue_ros.geometry.two_view import (
    LEAST_DEPTHS,
    TwoViewGeometry,
    estimate_two_view,
    no_pose,
)
from superglue_ros.geometry.views import inverse
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.refinement import refined
from superglue_ros.mapping.tracks import Claim, Tracking, relabelled, shared_ids
from superglue_ros.types import (
    NO_TRACK,
    BoolArray,
    Correspondences,
    Features,
    FloatArray,
    IdArray,
    IntArray,
    Matches,
    MatchKind,
    MatchStatus,
    PoseStatus,
    RelativePose,
)

# A two-view geometry explains the inliers, even if the translation is undetermined.
_EXPLAINED = (PoseStatus.VALID, PoseStatus.ROTATION_ONLY, PoseStatus.PLANAR)
# The reference was chosen by similarity, not because the camera was there just before.
_BY_LOOKS = (MatchKind.LOOP, MatchKind.RELOCALISE)


@dataclass(frozen=True, eq=False)
class FramePair:
    """A frame against one reference frame; ``calibrated``: both cameras were known.

    ``strong``: the check is strong enough to merge landmarks. A loop may be good enough to be
    published and too weak for that: merged landmarks cannot be separated again.
    """

    matches: Matches
    pose: RelativePose
    calibrated: bool = True
    strong: bool = True

    @property
    def tracked(self) -> bool:
        """Whether the frame is verified to see what the reference sees.

        Without calibration, enough matches suffice, unless the reference was chosen by similarity.
        """
        if self.calibrated:
            return self.pose.status in _EXPLAINED
        return self.matches.status is MatchStatus.OK and self.matches.kind not in _BY_LOOKS

    @property
    def verified(self) -> BoolArray:
        """(K,) which matches are reliable: the inliers, or all without calibration."""
        if not self.calibrated:
            return np.full(len(self.matches), self.tracked)
        return self.matches.inlier & self.tracked

    def claim(self, reference_ids: IdArray) -> Claim:
        """The evidence of this pair for the landmarks of the query frame."""
        return Claim(
            kind=self.matches.kind,
            reference_ids=reference_ids,
            index_ref=self.matches.index_ref,
            index_query=self.matches.index_query,
            scores=self.matches.scores,
            verified=self.verified & self.strong,
        )

    def with_tracks(self, reference_ids: IdArray, tracking: Tracking) -> FramePair:
        """The same pair with the landmark of every match, and the merges if it closed a loop."""
        closes = self.matches.kind is MatchKind.LOOP and self.tracked and self.strong
        merged = tracking.merged if closes else {}
        claim = self.claim(relabelled(reference_ids, tracking.merged))
        matches = dataclasses.replace(
            self.matches,
            track_ids=shared_ids(claim, tracking.ids),
            merged_from=np.array(list(merged.keys()), np.int64),
            merged_into=np.array(list(merged.values()), np.int64),
        )
        return dataclasses.replace(self, matches=matches)

    def with_ids(self, track_ids: IdArray) -> FramePair:
        """The same pair with the landmark (K,) of every match."""
        return dataclasses.replace(
            self, matches=dataclasses.replace(self.matches, track_ids=track_ids)
        )

    def with_query_indices(self, places: NDArray[np.intp]) -> FramePair:
        """The same pair with query indices into the features before some were dropped."""
        index = places[self.matches.index_query].astype(np.int32)
        return dataclasses.replace(
            self, matches=dataclasses.replace(self.matches, index_query=index)
        )

    def lost(self) -> FramePair:
        """The same pair, with the status that no keyframe was recognised."""
        return self._with_status(PoseStatus.LOST)

    def unconfirmed(self) -> FramePair:
        """The same pair, with the status of a loop that no further keyframe has confirmed."""
        return self._with_status(PoseStatus.UNCONFIRMED)

    def _with_status(self, status: PoseStatus) -> FramePair:
        return dataclasses.replace(self, pose=dataclasses.replace(self.pose, status=status))


def verify(
    candidate: Candidate, query: Keyframe, found: Correspondences, config: Config
) -> FramePair:
    """Estimate the geometry of ``found`` and assemble the result for the pair.

    A pair that would close a loop or end a loss of tracking must bring at least
    ``keyframes.loop_min_inliers`` inliers: a false match does more harm than a missed one.
    """
    reference = candidate.keyframe
    calibrated = reference.camera is not None and query.camera is not None
    rules = _strictness(candidate.kind, config)
    points_ref = reference.features.keypoints[found.index_ref]
    better = refined(
        make_refiner(config.refinement),
        reference.resized,
        query.resized,
        points_ref,
        query.features.keypoints[found.index_query],
        found.turns,
    )
    sigma = better.sigma_or(sigma_of_matches(reference.features, query.features, found))
    points_ref = as_global_shutter(reference, points_ref, config.geometry)
    points_query = as_global_shutter(query, better.points, config.geometry)
    if not calibrated:
        geometry = no_pose(len(found), rules)
    elif _depths(reference, found.index_ref) >= min(
        LEAST_DEPTHS, _depths(query, found.index_query)
    ):
        geometry = _two_view(reference, query, found, (points_ref, points_query), sigma, rules)
    else:  # only the query has depth: estimate in the other direction
        swapped = Correspondences(found.index_query, found.index_ref, found.scores)
        points = points_query, points_ref
        geometry = inverse(_two_view(query, reference, swapped, points, sigma, rules))
    points = points_ref, points_query
    return frame_pair(candidate, query, found, geometry, config, calibrated, points, sigma)


def as_global_shutter(frame: Keyframe, points: FloatArray, config: GeometryConfig) -> FloatArray:
    """Pixels (K, 2) float32 as they would be had all rows been exposed in the middle of the image.

    As far as the camera's rotation goes; unchanged where that, or the camera, is not known.
    """
    if not config.readout_s or frame.turning is None or frame.camera is None:
        return points
    shift = rotation_shift(points, frame.camera, frame.turning, config.readout_s)
    return np.asarray(points + shift, np.float32)


def _two_view(
    reference: Keyframe,
    query: Keyframe,
    found: Correspondences,
    points: tuple[FloatArray, FloatArray],
    sigma: FloatArray,
    rules: GeometryConfig,
) -> TwoViewGeometry:
    assert reference.camera is not None
    assert query.camera is not None
    return estimate_two_view(
        points[0],
        points[1],
        reference.camera,
        query.camera,
        rules,
        scores=found.scores,
        sigma_px=sigma,
        depth_ref=_chosen(reference.depth, found.index_ref),
        depth_sigma=_chosen(reference.depth_sigma, found.index_ref),
    )


def _depths(frame: Keyframe, index: IntArray) -> int:
    """How many of the keypoints ``index`` have a depth."""
    return 0 if frame.depth is None else int((frame.depth[index] > 0).sum())


def frame_pair(
    candidate: Candidate,
    query: Keyframe,
    found: Correspondences,
    geometry: TwoViewGeometry,
    config: Config,
    calibrated: bool = True,
    points: tuple[FloatArray, FloatArray] | None = None,
    sigma: FloatArray | None = None,
) -> FramePair:
    """The result for a pair, given its geometry.

    ``points`` (K, 2) of reference and query, and ``sigma`` (K,), are those of the features if they
    are not given.
    """
    reference = candidate.keyframe
    if points is None:
        points = (
            reference.features.keypoints[found.index_ref],
            query.features.keypoints[found.index_query],
        )
    if sigma is None:
        sigma = sigma_of_matches(reference.features, query.features, found)
    matches = Matches(
        reference=reference.id,
        query=query.id,
        kind=candidate.kind,
        status=_status(reference.features, query.features, found, config.geometry),
        index_ref=found.index_ref,
        index_query=found.index_query,
        points_ref=points[0],
        points_query=points[1],
        scores=found.scores,
        inlier=geometry.inliers,
        sigma_px=sigma,
        track_ids=np.full(len(found), NO_TRACK, np.int64),
        rectified=query.rectified,
    )
    least = config.keyframes.loop_merge_inliers if candidate.kind is MatchKind.LOOP else 0
    strong = int(geometry.inliers.sum()) >= least
    return FramePair(matches, _pose(matches, geometry), calibrated, strong)


def sigma_of_matches(reference: Features, query: Features, found: Correspondences) -> FloatArray:
    """(K,) float32 pixels, standard deviation of both keypoints of each match together."""
    sigma = np.hypot(reference.sigma_px[found.index_ref], query.sigma_px[found.index_query])
    return np.asarray(sigma, np.float32)


def _chosen(values: FloatArray | None, index: IntArray) -> FloatArray | None:
    return None if values is None else values[index]


def _strictness(kind: MatchKind, config: Config) -> GeometryConfig:
    if kind not in _BY_LOOKS:
        return config.geometry
    least = max(config.geometry.min_inliers, config.keyframes.loop_min_inliers)
    return dataclasses.replace(config.geometry, min_inliers=least)


def _pose(matches: Matches, geometry: TwoViewGeometry) -> RelativePose:
    return RelativePose(
        reference=matches.reference,
        query=matches.query,
        status=geometry.status,
        method=geometry.method,
        rotation=geometry.rotation,
        translation=geometry.translation,
        covariance=geometry.covariance,
        scale_known=geometry.scale_known,
        num_matches=len(matches),
        num_inliers=int(geometry.inliers.sum()),
        inlier_threshold_px=geometry.threshold_px,
        median_epipolar_px=geometry.median_epipolar_px,
        median_parallax_rad=geometry.median_parallax_rad,
    )


def _status(
    reference: Features, query: Features, found: Correspondences, config: GeometryConfig
) -> MatchStatus:
    if not len(reference):
        return MatchStatus.NO_KEYPOINTS_REFERENCE
    if not len(query):
        return MatchStatus.NO_KEYPOINTS_QUERY
    if len(found) < config.min_matches:
        return MatchStatus.FEW
    return MatchStatus.OK
