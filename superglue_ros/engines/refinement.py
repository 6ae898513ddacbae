"""Refinement of matches by a network: offset and covariance of every match."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.geometry.patches import local_similarity, patch_pairs
from superglue_ros.geometry.refinement import Refined
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.weights import load_refinement

GreyImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class NetworkRefinement:
    """Registers the patches around both pixels by a network; see :class:`PatchRegistration`.

    Unlike Lucas-Kanade it knows how detectors err, turns and scales the query's patch like its
    neighbourhood, and states a covariance. A match whose patches leave an image keeps its
    pixel. On the CPU: the arithmetic is less than a GPU's transfers take.
    """

    MOST_PX = 3.0

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
        covariance = np.full((count, 2, 2), np.nan, np.float32)
        if not count:
            return Refined(points_query, covariance)
        similarity = local_similarity(points_ref, points_query)
        side = self._network.config.side
        pairs = patch_pairs((reference, query), points_ref, points_query, similarity, side)
        good, turn = pairs.inside, similarity[pairs.inside]
        if not good.any():
            return Refined(points_query, covariance)
        found = self._network(
            torch.from_numpy(pairs.reference[good]), torch.from_numpy(pairs.query[good])
        )
        offset = np.einsum("kij,kj->ki", turn, found.offset.numpy())
        factor = turn @ found.factor.numpy()
        length = np.linalg.norm(offset, axis=1, keepdims=True)
        offset *= np.minimum(1.0, self.MOST_PX / np.maximum(length, 1e-6))
        points = np.array(points_query, np.float32)
        points[good] += offset
        covariance[good] = factor @ factor.swapaxes(1, 2)
        return Refined(points, covariance)


@lru_cache(maxsize=1)
def make() -> NetworkRefinement:
    """The refinement with the package's weights, read once."""
    return NetworkRefinement()
