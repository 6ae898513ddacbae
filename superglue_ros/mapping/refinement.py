"""Refinement of the matches of two frames, in pixels of the original images."""

from __future__ import annotations

import numpy as np

from superglue_ros.data.image import Resized
from superglue_ros.geometry.refinement import Refiner
from superglue_ros.types import FloatArray


def refined(
    refiner: Refiner,
    reference: Resized | None,
    query: Resized | None,
    points_ref: FloatArray,
    points_query: FloatArray,
) -> FloatArray:
    """Refined pixels (K, 2) of the query, inside its image.

    The images are compared at the network's size. Where one is missing, as in a map that was
    loaded or of another robot, pixels stay as they are.
    """
    if reference is None or query is None or not len(points_ref):
        return points_query
    start = query.to_resized(points_query)
    moved = refiner.refine(reference.image, query.image, reference.to_resized(points_ref), start)
    height, width = query.image.shape
    outside = ((moved < -0.5) | (moved > [width - 0.5, height - 0.5])).any(axis=1)
    kept = outside | (moved == start).all(axis=1)  # unchanged to the bit: not scaled forth and back
    return np.where(kept[:, None], points_query, query.to_original(moved))
