"""Refinement of matches: register the query's patch to the reference's.

A detector places keypoints in each image independently; matched ones disagree by about a pixel,
which bounds the accuracy of a pose. Comparing the image patches is more exact. The names are in
:data:`superglue_ros.registry.REFINERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.registry import REFINERS

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Refined:
    """Refined matches.

    ``points`` (K, 2) float32: pixels of the query. ``covariance`` (K, 2, 2) float32 [px^2]: of a
    match, in the query's image, NaN where it is not known; None where the method estimates none.
    """

    points: FloatArray
    covariance: FloatArray | None = None


class Refiner(Protocol):
    """Moves matched pixels of the query."""

    def refine(
        self,
        reference: GreyImage,
        query: GreyImage,
        points_ref: FloatArray,
        points_query: FloatArray,
    ) -> Refined:
        """Refined ``points_query`` (K, 2) float32, with covariances where the method has them.

        Grey images (H, W) uint8 and pixels (K, 2) of them, (0, 0) the centre of the top-left one. A
        match that cannot be refined keeps its pixel.
        """
        ...


def make_refiner(name: str) -> Refiner:
    """The refiner of that name; raises :class:`ConfigError`."""
    made: Refiner = REFINERS.make(name)
    return made


class NoRefinement:
    """Leaves matches unchanged."""

    def refine(
        self,
        reference: GreyImage,
        query: GreyImage,
        points_ref: FloatArray,
        points_query: FloatArray,
    ) -> Refined:
        """See :class:`Refiner`."""
        return Refined(points_query)


class LucasKanade:
    """Iterative registration of the patches around both pixels (Lucas and Kanade, 1981).

    Estimates a translation of the patch, starting at the match. Refused are steps of more than
    ``MOST_PX``, which lead to another point, and those that do not lead back from the query to
    within ``RETURN_PX`` of the reference's pixel.
    """

    WINDOW_PX = 9
    MOST_PX = 2.5
    RETURN_PX = 1.0

    def refine(
        self,
        reference: GreyImage,
        query: GreyImage,
        points_ref: FloatArray,
        points_query: FloatArray,
    ) -> Refined:
        """See :class:`Refiner`."""
        if not len(points_ref):
            return Refined(points_query)
        fixed = np.ascontiguousarray(points_ref, np.float32)
        start = np.ascontiguousarray(points_query, np.float32)
        moved, there = self._register(reference, query, fixed, start)
        returned, back = self._register(query, reference, moved, fixed)
        good = there & back & (np.linalg.norm(returned - fixed, axis=1) < self.RETURN_PX)
        return Refined(np.where(good[:, None], moved, start))

    def _register(
        self, first: GreyImage, second: GreyImage, points: FloatArray, start: FloatArray
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Positions in ``second`` of ``points`` (K, 2) in ``first``, near ``start``; success."""
        flow, found, _ = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            points[:, None],
            start[:, None].copy(),
            winSize=(self.WINDOW_PX, self.WINDOW_PX),
            maxLevel=0,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.01),
        )
        moved: FloatArray = np.asarray(flow[:, 0], np.float32)
        near = np.linalg.norm(moved - start, axis=1) < self.MOST_PX
        return moved, np.asarray((found[:, 0] > 0) & near)
