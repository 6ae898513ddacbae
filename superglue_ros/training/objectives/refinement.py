"""Training of the refinement network: the likelihood of the true offset of matched patches.

Matches are corners of one view and their true places in the other, both displaced as a detector
displaces them. Some matches are wrong: nothing in their patches tells the offset, so the network
learns to say so by a large covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from superglue_ros.geometry.patches import halved, halved_points, local_affine, patches
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.weights import save
from superglue_ros.training.checkpoint import WEIGHTS
from superglue_ros.training.data.drawn_pairs import PairSource
from superglue_ros.training.data.loading import to_device
from superglue_ros.training.data.views import ViewSet
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.single_stage import SingleStage
from superglue_ros.training.recipes import NoiseConfig, RefinementRecipe

FloatArray = NDArray[np.float32]
GreyImage = NDArray[np.uint8]

_LEAST_CORNERS = 8


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Patches (K, side, side) of both views, true offsets (K, 2), and whether matches are right."""

    first: Tensor
    second: Tensor
    offset: Tensor
    right: Tensor


class RefinementObjective(SingleStage):
    """The refinement network on matches of drawn views."""

    name = "refinement"

    def __init__(self, recipe: RefinementRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.device = training_device(recipe.loop.device)
        self.network = PatchRegistration(recipe.network).to(self.device)
        self._source = PairSource(recipe.views, recipe.pairs)

    def write_weights(self, network: Any, folder: Path) -> None:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        save(network, folder / WEIGHTS, "", "trained with superglue-ros train", half=True)

    def draw(self, step: int, rng: np.random.Generator) -> PatchBatch:
        """Matches of new pairs of views."""
        sets = self._source.draw(rng).sets
        side, noise, count = (
            self.recipe.network.side,
            self.recipe.noise,
            self.recipe.views.keypoints,
        )
        parts = [draw_patches(views, rng, side, noise, count) for views in sets]
        return PatchBatch(*(torch.cat(group) for group in zip(*parts, strict=True)))

    def loss(self, batch: PatchBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean negative log likelihood; median error [px] and mean of the squared whitened one."""
        batch = to_device(batch, self.device)
        found = self.network(batch.first, batch.second)
        loss = found.negative_log_likelihood(batch.offset)
        with torch.no_grad():
            right = batch.right
            error = batch.offset - found.offset
            inverse = torch.linalg.inv(found.covariance)
            nees = torch.einsum("ki,kij,kj->k", error, inverse, error)
            numbers = {
                "before": float(batch.offset[right].norm(dim=1).median()),
                "after": float(error[right].norm(dim=1).median()),
                "nees": float(nees[right].mean()) / 2,
            }
        return loss.mean(), numbers

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Nothing is held out: no pair of views is drawn twice, so the loss shows the progress."""
        return {}


def draw_patches(
    views: ViewSet, rng: np.random.Generator, side: int, noise: NoiseConfig, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Up to ``count`` matches of the first two views, in the views and in them at half their size.

    The fields of :class:`PatchBatch`.
    """
    corners = cv2.goodFeaturesToTrack(views.images[0], count, 0.003, 5)
    points: FloatArray = np.zeros((0, 2), np.float32)
    if corners is not None:
        points = np.asarray(corners[:, 0], np.float32)
    points = points + rng.uniform(-0.5, 0.5, points.shape).astype(np.float32)
    projected = views.project(points, 0, 1)
    seen = np.isfinite(projected.points).all(axis=1) & ~projected.hidden & ~projected.unknown
    points, true = points[seen], projected.points[seen].astype(np.float32)
    one, other = views.images[:2]
    sizes = [
        (one, other, points, true),
        (halved(one), halved(other), halved_points(points), halved_points(true)),
    ]
    parts = [_displaced(*size, rng, side, noise) for size in sizes for _ in range(noise.draws)]
    first, second, offset, right = (torch.cat(group) for group in zip(*parts, strict=True))
    return first, second, offset, right


def _displaced(
    one: GreyImage,
    other: GreyImage,
    points: FloatArray,
    true: FloatArray,
    rng: np.random.Generator,
    side: int,
    noise: NoiseConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches at ``points`` (K, 2) of one image and near the ``true`` ones of the other."""
    scale = rng.choice(noise.scales_px, (len(true), 1), p=noise.shares)
    moves = rng.normal(0.0, 1.0, true.shape) * scale
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    moves *= np.minimum(1.0, noise.most_px / np.maximum(length, 1e-6))
    start = (true + moves).astype(np.float32)
    wrong = rng.random(len(true)) < noise.wrong
    if len(true) >= _LEAST_CORNERS:
        start[wrong] = rng.permutation(start)[wrong]
    affine = local_affine(points, start)
    reference, inside = patches(one, points, None, side)
    query, seen = patches(other, start, affine, side)
    offset = np.linalg.solve(affine, (true - start)[:, :, None])[:, :, 0]
    nothing = rng.normal(0.0, noise.wrong_px, offset.shape)
    offset = np.where(wrong[:, None], nothing, offset)
    good = inside & seen & (np.abs(offset) < 3 * noise.most_px).all(axis=1)
    arrays = (reference, query, offset.astype(np.float32), ~wrong)
    first, second, true_offset, right = (torch.from_numpy(array[good]) for array in arrays)
    return first, second, true_offset, right
