"""Training of the filters of matches on cached views: classification, and the model they give.

The filter reads the nearest neighbours of the descriptors. Which of them are right is known by the
labels; the loss is a balanced cross-entropy plus a term on the model that the filter's weights give
(Yi et al., CVPR 2018; Zhang et al., ICCV 2019): a fundamental matrix, or a homography where views
are of a plane, for which there is no single fundamental matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import MatchLabels
from superglue_ros.matchers.nearest import nearest_claims
from superglue_ros.networks.match_filter import MatchFilter, match_weights, normalised_matches
from superglue_ros.networks.model_fits import (
    epipolar_distance,
    transfer_distance,
    weighted_fundamental,
    weighted_homography,
)
from superglue_ros.networks.weights import save
from superglue_ros.training.checkpoint import WEIGHTS
from superglue_ros.training.data.batches import (
    PairSample,
    augment,
    draw_pairs,
    group_by_size,
    read_pair,
)
from superglue_ros.training.data.cache import Shard, cached_source, read_cache
from superglue_ros.training.data.loading import to_device
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.single_stage import SingleStage
from superglue_ros.training.recipes import FilterLossConfig, MatchFilterRecipe

_RIGHT_PX, _WRONG_PX = 3.0, 5.0  # from the labelled partner; matches between are left out
_LEAST_MATCHES = 16
_FAR = 0.1  # distances from the model count up to this, in coordinates of the order of one
_VALIDATION_PAIRS = 96
_STILL_PX = 0.5


@dataclass(frozen=True, eq=False)
class FilterBatch:
    """Matches (P, N, 4), normalised, and which are right: 1, wrong: 0, left out: -1 (P, N).

    ``planar``: the views are of planes; ``regress``: the model's term of the loss counts.
    """

    matches: Tensor
    right: Tensor
    planar: bool
    regress: bool


class MatchFilterObjective(SingleStage):
    """PointCN or OANet on the nearest neighbours of cached views."""

    name = "filter"

    def __init__(self, recipe: MatchFilterRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.device = training_device(recipe.loop.device)
        self.network = MatchFilter(recipe.network).to(self.device)
        self._caches = [_Cache.read(name, recipe.sampling.bucket) for name in recipe.caches]
        shares = np.array(list(recipe.caches.values()), np.float64)
        self._shares = shares / shares.sum()
        self._validation = [_Cache.read(name) for name in recipe.validation]

    def write_weights(self, network: Any, folder: Path) -> None:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        save(network, folder / WEIGHTS, "", "trained with superglue-ros train", half=True)

    def draw(self, step: int, rng: np.random.Generator) -> FilterBatch:
        """Matches of pairs of one cache, as many of each as the pair with the fewest has."""
        cache = self._caches[int(rng.choice(len(self._caches), p=self._shares))]
        sampling = self.recipe.sampling
        parts = []
        for sample in draw_pairs(cache.buckets, sampling.pairs, rng):
            still, how = rng.random() < self.recipe.still, sampling
            if still:
                sample = _still(sample, rng)
                if rng.random() < 0.5:  # with all keypoints every match is right
                    how = replace(sampling, drop=0.0, keypoints=len(sample.labels.matches0))
            matches, right = judged_matches(augment(sample, rng, how))
            parts.append((matches if still else warped(matches, self.recipe.warp, rng), right))
        count = min(len(right) for _, right in parts)
        kept = [rng.permutation(len(right))[:count] for _, right in parts]
        return FilterBatch(
            torch.stack([matches[keep] for (matches, _), keep in zip(parts, kept, strict=True)]),
            torch.stack([right[keep] for (_, right), keep in zip(parts, kept, strict=True)]),
            cache.planar,
            step >= self.recipe.loss.regression_from,
        )

    def loss(self, batch: FilterBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the stages of the network; precision and recall of the last in per cent."""
        batch = to_device(batch, self.device)
        logits = self.network(batch.matches)
        terms = [filter_loss(self.recipe.loss, one, batch) for one in logits.unbind(1)]
        return torch.stack(terms).mean(), _quality(logits[:, -1], batch.right)

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Precision and recall in per cent on a part of each validation cache."""
        found: dict[str, float] = {}
        for cache in self._validation:
            pairs = [pair for bucket in cache.buckets for pair in bucket]
            chosen = pairs[:: max(1, len(pairs) // _VALIDATION_PAIRS)][:_VALIDATION_PAIRS]
            rows = []
            for shard, index in chosen:
                matches, right = judged_matches(read_pair(shard, index))
                logits = network(matches[None].to(self.device))[:, -1]
                rows.append(_quality(logits, right[None].to(self.device)))
            for name in rows[0]:
                found[f"{cache.name} {name}"] = float(np.mean([float(row[name]) for row in rows]))
        return found


def filter_loss(config: FilterLossConfig, logits: Tensor, batch: FilterBatch) -> Tensor:
    """Balanced cross-entropy of log odds (P, N), and the weighted term of the model."""
    right, wrong = (batch.right == 1).to(logits), (batch.right == 0).to(logits)
    positive = (F.softplus(-logits) * right).sum(1) / right.sum(1).clamp(min=1)
    negative = (F.softplus(logits) * wrong).sum(1) / wrong.sum(1).clamp(min=1)
    loss = (positive + negative).mean() / 2
    if not config.regression or not batch.regress:
        return loss
    known = right.sum(1) >= _LEAST_MATCHES
    if not known.any():
        return loss
    return loss + config.regression * _model_error(
        config.form, logits[known], batch.matches[known], right[known], batch.planar
    )


def _model_error(form: str, logits: Tensor, matches: Tensor, right: Tensor, planar: bool) -> Tensor:
    """How far the model of the filter's weights is from the right matches, or from their model."""
    fit = weighted_homography if planar else weighted_fundamental
    model = fit(matches, match_weights(logits) + 1e-6)
    if form == "matrix":
        truth = fit(matches, right)
        off = [(model - sign * truth).square().sum((1, 2)) for sign in (1, -1)]
        return torch.minimum(*off).mean().to(logits)
    distance = (transfer_distance if planar else epipolar_distance)(matches, model)
    return ((distance.clamp(max=_FAR) * right).sum() / right.sum()).to(logits)


def judged_matches(sample: PairSample) -> tuple[Tensor, Tensor]:
    """Nearest neighbours of a pair: matches (N, 4), normalised, and right 1, wrong 0, unknown -1.

    A match is right within ``_RIGHT_PX`` of the keypoint's labelled partner, wrong beyond
    ``_WRONG_PX`` or where the keypoint has none.
    """
    (points0, _, descriptors0, size0), (points1, _, descriptors1, size1) = sample.sides
    rows, columns = nearest_claims(descriptors0, descriptors1)
    partner = torch.from_numpy(sample.labels.matches0).long()[rows]
    off = (points1[columns] - points1[partner.clamp(min=0)]).norm(dim=1)
    right = torch.full_like(partner, -1)
    right[(partner == -1) | ((partner >= 0) & (off > _WRONG_PX))] = 0
    right[(partner >= 0) & (off < _RIGHT_PX)] = 1
    return normalised_matches(points0[rows], points1[columns], size0, size1), right


def warped(matches: Tensor, size: float, rng: np.random.Generator) -> Tensor:
    """Matches (N, 4) with the points of image 1 under a random homography near the identity.

    What is right stays so: matches of a plane obey another homography then, and all others another
    fundamental matrix. ``size``: standard deviation of the entries, a third of it in perspective.
    """
    if not size:
        return matches
    noise = rng.normal(0, size, (3, 3)) / [[1, 1, 1], [1, 1, 1], [3, 3, np.inf]]
    homography = torch.from_numpy(np.eye(3) + noise).float()
    there = matches[:, 2:] @ homography[:, :2].T + homography[:, 2]
    return torch.cat([matches[:, :2], there[:, :2] / there[:, 2:].clamp(min=0.2)], 1)


def _still(sample: PairSample, rng: np.random.Generator) -> PairSample:
    """The first view with itself, as of a camera that stands: pixels differ by noise only."""
    points, scores, descriptors, size = sample.sides[0]
    noise = rng.normal(0, _STILL_PX, tuple(points.shape)).astype(np.float32)
    own = np.arange(len(points), dtype=np.int32)
    moved = (points + torch.from_numpy(noise), scores, descriptors, size)
    return PairSample((sample.sides[0], moved), MatchLabels(own, own))


@dataclass(frozen=True, eq=False)
class _Cache:
    """The pairs of a cache that have enough matches, in buckets of similar size."""

    name: str
    buckets: list[list[tuple[Shard, int]]]
    planar: bool

    @classmethod
    def read(cls, folder: str, bucket: int = 1 << 30) -> _Cache:
        shards, _ = read_cache(folder)
        buckets = group_by_size(shards, bucket)
        if not buckets:
            raise DataError(f"cache {folder} has no pair with enough matches: make it again")
        return cls(Path(folder).name, buckets, cached_source(folder) == "homography")


def _quality(logits: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Precision and recall in per cent of matches of positive log odds, mean over the pairs."""
    with torch.no_grad():
        chosen = (logits > 0) & (right >= 0)
        hits = (chosen & (right == 1)).sum(1)
        precision = hits / chosen.sum(1).clamp(min=1)
        recall = hits / (right == 1).sum(1).clamp(min=1)
        return {"precision": 100 * precision.mean(), "recall": 100 * recall.mean()}
