"""Refinement of matches by a network: offset and covariance of every match."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.geometry.patches import halved, halved_points, local_affine, patches
from superglue_ros.geometry.refinement import Refined
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.weights import load_refinement

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class NetworkRefinement:
    """Registers the patches around both pixels by a network; see :class:`PatchRegistration`.

    Unlike Lucas-Kanade it knows how detectors err, deforms the query's patch like its
    neighbourhood, and states a covariance. From coarse to fine: in the images at a quarter and at
    half their size patches show more, which finds what a detector missed by some pixels; the nearer
    two patches then are, the better they are registered at full size, where a long step is
    repeated. A match is not moved at a size at which its patches leave an image, nor by a coarse
    step that is uncertain. On the CPU: the arithmetic is less than a GPU's transfers take.
    """

    STEPS = ((2, 0.0), (1, 0.0), (0, 0.0), (0, 0.8))
    """How often the images are halved for a step, and how long [px] the one before must have been:
    what still moves far is not there yet."""
    MOST_PX = 3.0
    """Largest step, in pixels of the images as halved."""
    UNCERTAIN_PX = 2.5
    """Standard deviation of a coarse step, in pixels of the images, from which on it is left out.
    Where a quarter of the size shows another facade or window, that step would do harm."""

    def __init__(self, network: PatchRegistration | None = None) -> None:
        self._network = network or load_refinement().network

    @torch.inference_mode()
    def refine(
        self,
        reference: GreyImage,
        query: GreyImage,
        points_ref: FloatArray,
        points_query: FloatArray,
    ) -> Refined:
        """See :class:`superglue_ros.geometry.refinement.Refiner`."""
        count = len(points_ref)
        affine = local_affine(points_ref, points_query)
        points = np.array(points_query, np.float32)
        factor = np.full((count, 2, 2), np.nan, np.float32)
        length = np.full(count, np.inf, np.float32)
        for halvings, least_px in self.STEPS:
            among = np.flatnonzero(length >= least_px)
            if not len(among):
                break
            first, there = self._patches(reference, points_ref[among], None, halvings)
            second, here = self._patches(query, points[among], affine[among], halvings)
            found = self._network(torch.from_numpy(first), torch.from_numpy(second))
            size = np.float32(2**halvings)
            step = size * np.einsum("kij,kj->ki", affine[among], found.offset.numpy())
            step *= np.minimum(1.0, self.MOST_PX * size / np.maximum(_norm(step), 1e-6))[:, None]
            its_factor = size * found.factor.numpy()
            taken = there & here
            if halvings:
                taken &= np.sqrt(np.square(its_factor).sum((1, 2)) / 2) < self.UNCERTAIN_PX
            length[among] = np.where(taken, _norm(step), 0.0)
            points[among[taken]] += step[taken]
            factor[among[taken]] = its_factor[taken]
        factor = affine @ factor
        return Refined(points, factor @ factor.swapaxes(1, 2))

    def _patches(
        self, image: GreyImage, points: FloatArray, transform: FloatArray | None, halvings: int
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Patches about pixels (K, 2) in the halved image; which lie inside."""
        for _ in range(halvings):
            image, points = halved(image), halved_points(points)
        return patches(image, points, transform, self._network.config.side)


def _norm(vectors: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(vectors, axis=1), np.float32)


@lru_cache(maxsize=1)
def make() -> NetworkRefinement:
    """The refinement with the package's weights, read once."""
    return NetworkRefinement()
