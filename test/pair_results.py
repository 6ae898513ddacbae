"""Matches and a relative pose between two frames, every field with a value of its own."""

from __future__ import annotations

import numpy as np

from superglue_ros.geometry.rotation import exp
from superglue_ros.types import (
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    PoseMethod,
    PoseStatus,
    RelativePose,
)

REFERENCE = FrameId(3, 1_000_000_001, "camera", "robot")
QUERY = FrameId(4, 2_000_000_002, "camera", "robot")


def matches(reference=REFERENCE, query=QUERY, count=5) -> Matches:
    rng = np.random.default_rng(0)
    return Matches(
        reference=reference,
        query=query,
        kind=MatchKind.LOOP,
        status=MatchStatus.OK,
        index_ref=np.arange(count, dtype=np.int32),
        index_query=np.arange(count, dtype=np.int32)[::-1].copy(),
        points_ref=rng.random((count, 2)).astype(np.float32),
        points_query=rng.random((count, 2)).astype(np.float32),
        scores=rng.random(count).astype(np.float32),
        inlier=np.arange(count) % 2 == 0,
        sigma_px=np.ones(count, np.float32),
        track_ids=np.arange(count) - 1,
        rectified=True,
        merged_from=np.array([10, 11]),
        merged_into=np.array([1, 2]),
    )


def pose(reference=REFERENCE, query=QUERY) -> RelativePose:
    return RelativePose(
        reference=reference,
        query=query,
        status=PoseStatus.VALID,
        method=PoseMethod.PNP,
        rotation=exp(np.array([0.1, -0.2, 0.3])),
        translation=np.array([1.0, 2.0, 3.0]),
        covariance=np.diag(np.arange(1.0, 7.0)),
        scale_known=True,
        num_matches=5,
        num_inliers=4,
        inlier_threshold_px=1.0,
        median_epipolar_px=0.25,
        median_parallax_rad=0.5,
    )
