"""Refinement of matches by a network: offset and covariance of every match."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.geometry.patches import local_similarity, patches
from superglue_ros.geometry.refinement import Refined
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.weights import load_refinement

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class NetworkRefinement:
    """Registers the patches around both pixels by a network; see :class:`PatchRegistration`.

    Unlike Lucas-Kanade it knows how detectors err, turns and scales the query's patch like its
    neighbourhood, and states a covariance. A match whose patches leave an image keeps its
    pixel. The nearer two patches are, the better they are registered: so the second pass begins
    where the first ended. On the CPU: the arithmetic is less than a GPU's transfers take.
    """

    MOST_PX = 3.0
    PASSES = 2

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
        if not count:
            return Refined(points_query, np.zeros((0, 2, 2), np.float32))
        similarity = local_similarity(points_ref, points_query)
        side = self._network.config.side
        first, inside = patches(reference, points_ref, None, side)
        answers = self._network.answer(torch.from_numpy(first))
        points = np.array(points_query, np.float32)
        factor = np.full((count, 2, 2), np.nan, np.float32)
        for _ in range(self.PASSES):
            second, seen = patches(query, points, similarity, side)
            found = self._network.compare(answers, self._network.answer(torch.from_numpy(second)))
            step = np.einsum("kij,kj->ki", similarity, found.offset.numpy()) + points - points_query
            length = np.linalg.norm(step, axis=1, keepdims=True)
            step *= np.minimum(1.0, self.MOST_PX / np.maximum(length, 1e-6))
            good = (inside & seen)[:, None]
            points = np.where(good, points_query + step, points)
            factor = np.where(good[:, None], found.factor.numpy(), factor)
        factor = similarity @ factor
        return Refined(points, factor @ factor.swapaxes(1, 2))


@lru_cache(maxsize=1)
def make() -> NetworkRefinement:
    """The refinement with the package's weights, read once."""
    return NetworkRefinement()
