"""Input and output of a two-view estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry import epipolar
from superglue_ros.geometry.two_view_models import Motion, RayPairs
from superglue_ros.geometry.two_view_models import epipolar as epipolar_model
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.geometry.verdict import PoseMethod, PoseStatus

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# A distance between points (two coordinates) and one to a line (one coordinate) that the same share
# of good matches exceeds: the root of the ratio of the 95 % quantiles of chi-square, 5.99 and 3.84.
POINT_TO_LINE = 1.249


@dataclass(frozen=True, eq=False)
class TwoViewGeometry:
    """``x_ref = R x_query + t`` with its uncertainty and quality.

    ``rotation`` (3, 3), ``translation`` (3,) of unit norm unless ``scale_known`` (then metres), and
    zero where its direction is unknown (ROTATION_ONLY, or no pose); ``covariance`` (6, 6), see
    :mod:`superglue_ros.geometry.covariance`; ``inliers`` (K,) bool over the given matches;
    ``threshold_px`` pixels, on the first-order distance to the model; ``median_epipolar_px``
    pixels, over the inliers, to epipolar lines (ROTATION_ONLY: to predicted points);
    ``median_parallax_rad`` radians, over the inliers. Both are NaN without inliers.
    """

    status: PoseStatus
    method: PoseMethod
    rotation: Array
    translation: Array
    covariance: Array
    scale_known: bool
    inliers: BoolArray
    threshold_px: float
    median_epipolar_px: float
    median_parallax_rad: float


@dataclass(frozen=True, eq=False)
class Views:
    """K matches with rays, and their data.

    ``pairs`` with standard deviations of one pixel; ``relative_sigma`` (K,) those of the matches
    over their median, and ``expected_px`` that median; ``prior`` (K,) weights; ``cells`` (K,) the
    image cells; ``depth`` (K,) metres, 0 = unknown, of standard deviation ``depth_sigma`` (K,)
    metres; ``size_query`` (width, height) pixels.
    """

    pairs: RayPairs
    focal_ref: float
    focal_query: float
    relative_sigma: Array
    expected_px: float
    prior: Array
    cells: NDArray[np.int64]
    depth: Array
    depth_sigma: Array
    size_query: tuple[int, int]

    @property
    def focals(self) -> tuple[float, float]:
        """Focal lengths of reference and query in pixels."""
        return self.focal_ref, self.focal_query

    def chance_of_line(self, distance_px: float) -> float:
        """Probability that a random point of the query image is this near to some given line.

        ``distance_px`` is first-order, shared by both images: sqrt(2) times that in one of them.
        """
        width, height = self.size_query
        return float(2 * np.sqrt(2) * distance_px * np.hypot(width, height) / (width * height))

    def chance_of_point(self, distance_px: float) -> float:
        """The same for a given point, at the distance that :data:`POINT_TO_LINE` allows."""
        width, height = self.size_query
        return float(np.pi * 2 * (POINT_TO_LINE * distance_px) ** 2 / (width * height))

    def weighted(self, scale_px: float = 1.0) -> RayPairs:
        """Pairs whose standard deviations are ``scale_px`` in the median and differ by match."""
        factor = scale_px * self.relative_sigma
        return replace(
            self.pairs,
            sigma_ref=self.pairs.sigma_ref * factor,
            sigma_query=self.pairs.sigma_query * factor,
        )

    def systematic(self, config: GeometryConfig) -> Array:
        """Systematic error (K, 1, 1) in the units of :meth:`weighted` pairs.

        It is as large for exact matches, in pixels, as for others: more of their deviations.
        """
        return (config.systematic_px / self.relative_sigma)[:, None, None]

    def select(self, mask: BoolArray) -> Views:
        """The matches where ``mask`` (K,) holds."""
        return replace(
            self,
            pairs=self.pairs.select(mask),
            relative_sigma=self.relative_sigma[mask],
            prior=self.prior[mask],
            cells=self.cells[mask],
            depth=self.depth[mask],
            depth_sigma=self.depth_sigma[mask],
        )


def no_pose(
    num_matches: int, config: GeometryConfig, status: PoseStatus = PoseStatus.REJECTED
) -> TwoViewGeometry:
    """No estimate: identity, covariance[0, 0] = -1, no inliers."""
    unknown = np.zeros((6, 6))
    unknown[0, 0] = -1.0
    return TwoViewGeometry(
        status=status,
        method=PoseMethod.NONE,
        rotation=np.eye(3),
        translation=np.zeros(3),
        covariance=unknown,
        scale_known=False,
        inliers=np.zeros(num_matches, bool),
        threshold_px=config.threshold_px,
        median_epipolar_px=np.nan,
        median_parallax_rad=np.nan,
    )


def pose_of(
    status: PoseStatus,
    method: PoseMethod,
    motion: tuple[Array, Array],
    spread: Array,
    inliers: BoolArray,
    good: RayPairs,
    focals: tuple[float, float],
    config: GeometryConfig,
) -> TwoViewGeometry:
    """A pose with the medians over its inliers' rays ``good``; ``motion`` is (R, t)."""
    rotation, translation = motion
    error = parallax = np.nan
    if len(good):
        parallax = float(np.median(epipolar.parallax(good.ref, good.query, rotation)))
        if np.any(translation):
            essential = epipolar.essential_matrix(rotation, translation)
            off = epipolar.symmetric_distance_px(good.ref, good.query, essential, *focals)
        else:
            off = epipolar.rotation_distance_px(good.ref, good.query, rotation, *focals)
        error = float(np.median(off))
    return TwoViewGeometry(
        status=status,
        method=method,
        rotation=rotation,
        translation=translation,
        covariance=spread,
        scale_known=method in (PoseMethod.PNP, PoseMethod.STEREO),
        inliers=inliers,
        threshold_px=config.threshold_px,
        median_epipolar_px=error,
        median_parallax_rad=parallax,
    )


def epipolar_inliers(motion: Motion, pairs: RayPairs, config: GeometryConfig) -> BoolArray:
    """Within the threshold of the epipolar constraint, and in front of both cameras.

    Far points, with less parallax than the threshold, count as in front: noise decides their sign.
    """
    distance = np.abs(epipolar_model(motion, pairs).residuals[:, 0])
    front = epipolar.in_front(pairs.ref, pairs.query, motion.rotation, motion.translation)
    parallax = epipolar.parallax(pairs.ref, pairs.query, motion.rotation)
    far = parallax <= config.threshold_px * (pairs.sigma_ref + pairs.sigma_query)
    return np.logical_and(distance <= config.threshold_px, np.logical_or(front, far))


def inverse(geometry: TwoViewGeometry) -> TwoViewGeometry:
    """The same with reference and query swapped: ``x_query = R^T x_ref - R^T t``.

    The covariance is carried along, where there is one.
    """
    turned = UncertainPose(geometry.rotation, geometry.translation, geometry.covariance).inverse()
    return replace(
        geometry,
        rotation=turned.rotation,
        translation=turned.translation,
        covariance=geometry.covariance if geometry.covariance[0, 0] == -1 else turned.covariance,
    )
