"""Refinement of the matches of two frames, in pixels of the original images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from superglue_ros.data.image import Resized
from superglue_ros.geometry.refinement import Refiner
from superglue_ros.mapping.rotation import turned, turned_points
from superglue_ros.types import FloatArray


@dataclass(frozen=True, eq=False)
class RefinedMatches:
    """Refined pixels ``points`` (K, 2) of the query, inside its image, and ``sigma_px`` (K,).

    That is the standard deviation of a match, the root mean square of its two directions, NaN where
    refinement tells nothing of it.
    """

    points: FloatArray
    sigma_px: FloatArray

    def sigma_or(self, otherwise: FloatArray) -> FloatArray:
        """``sigma_px``, and ``otherwise`` (K,) where it is not known."""
        return np.where(np.isnan(self.sigma_px), otherwise, self.sigma_px).astype(np.float32)


def refined(
    refiner: Refiner,
    reference: Resized | None,
    query: Resized | None,
    points_ref: FloatArray,
    points_query: FloatArray,
    turns: int = 0,
) -> RefinedMatches:
    """Refined matches, in pixels of the original images.

    The images are compared at the network's size, the query's turned by ``turns`` quarters. Where
    one is missing, as in a map that was loaded or of another robot, pixels stay as they are.
    """
    unknown = np.full(len(points_query), np.nan, np.float32)
    if reference is None or query is None or not len(points_ref):
        return RefinedMatches(points_query, unknown)
    start = query.to_resized(points_query)
    shape = query.image.shape
    image = turned(query.image, turns)
    found = refiner.refine(
        reference.image, image, reference.to_resized(points_ref), turned_points(start, shape, turns)
    )
    moved = turned_points(found.points, image.shape, -turns)
    height, width = shape
    outside = ((moved < -0.5) | (moved > [width - 0.5, height - 0.5])).any(axis=1)
    kept = outside | (moved == start).all(axis=1)  # unchanged to the bit: not scaled forth and back
    points = np.where(kept[:, None], points_query, query.to_original(moved))
    if found.covariance is None:
        return RefinedMatches(points, unknown)
    scales = (query.scale_x, query.scale_y)[:: -1 if turns % 2 else 1]
    variance = np.diagonal(found.covariance, axis1=1, axis2=2) * np.square(scales)
    return RefinedMatches(points, np.where(outside, np.nan, np.sqrt(variance.mean(axis=1))))
