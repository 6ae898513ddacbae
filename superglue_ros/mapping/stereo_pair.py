"""A rectified stereo pair: matches along rows, and the depth of the left keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.errors import CalibrationError
from superglue_ros.geometry.stereo import StereoRig, disparity_sigma, stereo_depth
from superglue_ros.geometry.two_view import estimate_stereo
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.verification import FramePair, frame_pair, sigma_of_matches
from superglue_ros.types import MAX_DEPTH_M, Correspondences, FloatArray, MatchKind, PoseStatus

# Depths of larger relative uncertainty are dropped: their error is skewed, far from Gaussian.
MOST_RELATIVE_SIGMA = 0.25


@dataclass(frozen=True, eq=False)
class StereoPair:
    """``pair`` of kind STEREO, left image as reference, right image as query.

    ``depth`` (N,) float32 metres along the optical axis at each of the N left keypoints, 0 where it
    is unknown; ``depth_sigma`` (N,) float32 metres, its standard deviation.
    """

    pair: FramePair
    depth: FloatArray
    depth_sigma: FloatArray


def verify_stereo(
    left: Keyframe, right: Keyframe, baseline: float, found: Correspondences, config: Config
) -> StereoPair:
    """Check matches by the rows of a rectified pair, and turn their disparities into depth.

    ``baseline`` in metres. A pair of which too few matches lie on equal rows is REJECTED and gives
    no depth: its images are not rectified, or were not taken at the same time.
    """
    if left.camera is None or right.camera is None:
        raise CalibrationError("a stereo pair has no calibration: calibrate both cameras")
    rig = StereoRig(left.camera, right.camera, baseline)
    points_left = left.features.keypoints[found.index_ref]
    points_right = right.features.keypoints[found.index_query]
    geometry = estimate_stereo(points_left, points_right, rig, config.geometry)
    pair = frame_pair(Candidate(left, MatchKind.STEREO), right, found, geometry, config)
    depth = np.zeros(len(left.features), np.float32)
    depth_sigma = np.zeros_like(depth)
    if geometry.status is PoseStatus.VALID:
        claimed = sigma_of_matches(left.features, right.features, found)
        points = points_left, points_right, rig, config.geometry
        measured = stereo_depth(*points, disparity_sigma(*points, claimed))
        known = measured.inlier & (measured.sigma <= MOST_RELATIVE_SIGMA * measured.depth)
        known &= measured.depth <= MAX_DEPTH_M
        depth[found.index_ref[known]] = measured.depth[known]
        depth_sigma[found.index_ref[known]] = measured.sigma[known]
    return StereoPair(pair, depth, depth_sigma)


def right_tracks(pair: FramePair, left_ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Landmarks (count,) of the right keypoints: those of their left matches, else -1.

    ``left_ids`` (N,) are the landmarks of the left keypoints. Only inliers of ``pair`` count.
    """
    ids = np.full(count, -1, np.int64)
    chosen = pair.verified
    ids[pair.matches.index_query[chosen]] = left_ids[pair.matches.index_ref[chosen]]
    return ids
