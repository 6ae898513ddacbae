"""Training of the aggregation for place recognition: views of one place among those of others.

Batches hold two overlapping views of each of many places of one cache. A view's descriptor must be
more similar to its partner's than to all others of the batch: cross-entropy over the similarities
(InfoNCE; van den Oord et al., 2018), in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.errors import DataError
from superglue_ros.networks.places import PlaceAggregation
from superglue_ros.networks.weights import save
from superglue_ros.training.checkpoint import WEIGHTS
from superglue_ros.training.data.cache import Shard, read_cache
from superglue_ros.training.data.loading import to_device
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.single_stage import SingleStage
from superglue_ros.training.recipes import PlacesRecipe


@dataclass(frozen=True, eq=False)
class PlaceBatch:
    """Two views of each of P places: descriptors (P, N, D), and which of them there are (P, N)."""

    first: Tensor
    second: Tensor
    mask0: Tensor
    mask1: Tensor


class PlacesObjective(SingleStage):
    """The aggregation on cached views."""

    name = "places"

    def __init__(self, recipe: PlacesRecipe) -> None:
        """Raises :class:`DataError` on caches of different features, or with too few places."""
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.device = training_device(recipe.loop.device)
        self.network = PlaceAggregation(recipe.network).to(self.device)
        self._caches = [PlaceCache.read(name) for name in recipe.caches]
        self._validation = [PlaceCache.read(name) for name in recipe.validation]
        self.descriptor_kind = _only_kind([*self._caches, *self._validation], recipe)
        shares = np.array(list(recipe.caches.values()), np.float64)
        self._shares = shares / shares.sum()

    def write_weights(self, network: Any, folder: Path) -> None:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        provenance = "trained with superglue-ros train"
        save(network, folder / WEIGHTS, self.descriptor_kind, provenance, half=True)

    def draw(self, step: int, rng: np.random.Generator) -> PlaceBatch:
        """A pair of views of each of ``places`` places of one cache."""
        cache = self._caches[int(rng.choice(len(self._caches), p=self._shares))]
        chosen = rng.permutation(len(cache.places))[: self.recipe.places]
        pairs = [cache.places[k][int(rng.integers(len(cache.places[k])))] for k in chosen]
        order = rng.random(len(pairs)) < 0.5
        count = int(rng.integers(*self.recipe.keypoints, endpoint=True))
        sides = [
            [self._view(shard, views[int(swap) ^ side], count, rng)
             for (shard, views), swap in zip(pairs, order, strict=True)]
            for side in (0, 1)
        ]  # fmt: skip
        stacked = [[torch.stack(part) for part in zip(*side, strict=True)] for side in sides]
        return PlaceBatch(stacked[0][0], stacked[1][0], stacked[0][1], stacked[1][1])

    def loss(self, batch: PlaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy; and the part [%] of views whose partner is the most similar."""
        batch = to_device(batch, self.device)
        first = self.network(batch.first, batch.mask0)
        second = self.network(batch.second, batch.mask1)
        return place_loss(first @ second.T, self.recipe.temperature)

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Recall at 1 [%] in each validation cache: of all views the most similar is a partner."""
        found = {}
        for cache in self._validation:
            pooled, partners = [], []
            for shard in cache.shards:
                mask = shard.scores > 0
                pooled.append(network(shard.descriptors.float().to(self.device),
                                      mask.to(self.device)).cpu())  # fmt: skip
                linked = torch.zeros(len(mask), len(mask), dtype=torch.bool)
                i, j = shard.pairs.long().T
                linked[i, j] = linked[j, i] = True
                partners.append(linked)
            similarity = torch.cat(pooled) @ torch.cat(pooled).T
            similarity.fill_diagonal_(-2)
            linked = torch.block_diag(*partners)
            asked = linked.any(1)
            hit = linked[torch.arange(len(linked)), similarity.argmax(1)]
            found[f"{cache.name} recall"] = 100 * float(hit[asked].float().mean())
        return found

    def _view(
        self, shard: Shard, view: int, count: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """The ``count`` best keypoints of a window of a view, some of them left out."""
        share = rng.uniform(self.recipe.crop, 1.0, 2)
        size = shard.sizes[view].numpy()
        low = rng.uniform(0.0, 1.0, 2) * (1 - share) * size
        points = shard.keypoints[view].numpy()
        inside = ((points >= low) & (points <= low + share * size)).all(axis=1)
        usable = inside & (shard.scores[view].numpy() > 0)
        kept = np.flatnonzero(usable & (rng.random(len(usable)) >= self.recipe.drop))[:count]
        if not len(kept):  # a window without texture
            kept = np.flatnonzero(shard.scores[view].numpy() > 0)[:count]
        descriptors = torch.zeros(count, shard.descriptors.shape[2])
        descriptors[: len(kept)] = shard.descriptors[view, torch.from_numpy(kept)].float()
        return descriptors, torch.arange(count) < len(kept)


def place_loss(similarity: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of similarities (P, P), whose diagonal is right, over rows and columns."""
    right = torch.arange(len(similarity), device=similarity.device)
    logits = similarity / temperature
    loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    with torch.no_grad():
        hits = (similarity.argmax(1) == right).float().mean()
    return loss, {"recall": 100 * hits}


@dataclass(frozen=True, eq=False)
class PlaceCache:
    """A cache's pairs of views, (shard, (view, view)), by place."""

    name: str
    kind: str
    shards: list[Shard]
    places: list[list[tuple[Shard, tuple[int, int]]]]

    @classmethod
    def read(cls, folder: str) -> PlaceCache:
        """Raises :class:`DataError` where there are less than two places."""
        shards, kind = read_cache(folder)
        places = [
            [(shard, pair) for pair in pairs] for shard in shards for pairs in _by_place(shard)
        ]
        if len(places) < 2:
            raise DataError(f"cache {folder} shows less than two places: make a larger one")
        return cls(Path(folder).name, kind, shards, places)


def _by_place(shard: Shard) -> list[list[tuple[int, int]]]:
    """The pairs of views, grouped by what pairs connect."""
    place = list(range(len(shard.counts)))

    def root(view: int) -> int:
        while place[view] != view:
            view = place[view]
        return view

    pairs = [(int(i), int(j)) for i, j in shard.pairs.tolist()]
    for i, j in pairs:
        place[root(j)] = root(i)
    groups: dict[int, list[tuple[int, int]]] = {}
    for pair in pairs:
        groups.setdefault(root(pair[0]), []).append(pair)
    return list(groups.values())


def _only_kind(caches: list[PlaceCache], recipe: PlacesRecipe) -> str:
    kinds = sorted({cache.kind for cache in caches})
    dims = {cache.shards[0].descriptors.shape[2] for cache in caches}
    if len(kinds) > 1 or dims != {recipe.network.descriptor_dim}:
        raise DataError(
            f"the caches hold {', '.join(kinds)} of {', '.join(map(str, sorted(dims)))} numbers; "
            f"give caches of one detector, of network.descriptor_dim: "
            f"{recipe.network.descriptor_dim}"
        )
    return kinds[0]
