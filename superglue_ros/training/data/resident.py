"""Cached pairs on the training device: batches are drawn, and their labels gathered, there.

Copying batches from main memory, and making them pair by pair, would keep a GPU waiting. All sets
of a batch have the same number of keypoints, so there is no padding and every batch of a stage has
the same shape.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.errors import DataError
from superglue_ros.training.data.batches import PairBatch, SamplingConfig
from superglue_ros.training.data.cache import Shard

_LOG = logging.getLogger(__name__)


class ResidentPairs:
    """Draws batches from weighted caches on a device; a batch depends only on the generator.

    The sampling is that of :func:`superglue_ros.training.data.batches.augment`, for all pairs of a
    batch at once, with exactly ``config.keypoints`` keypoints in every set.
    """

    def __init__(
        self,
        caches: Mapping[str, Sequence[Shard]],
        weights: Mapping[str, float],
        config: SamplingConfig,
        device: torch.device,
    ) -> None:
        """Raises :class:`DataError` where a cache has no pair with enough keypoints."""
        self.config, self._device = config, device
        shards = [shard for name in caches for shard in caches[name]]
        self._keypoints = _gather(shards, "keypoints", device)
        self._scores = _gather(shards, "scores", device)
        self._descriptors = _gather(shards, "descriptors", device)
        self._counts = _gather(shards, "counts", device)
        self._sizes = _gather(shards, "sizes", device)
        self._labels = (_gather(shards, "matches0", device), _gather(shards, "matches1", device))
        first = np.cumsum([0, *(len(shard.counts) for shard in shards)])
        self._pairs = torch.cat(
            [s.pairs.long() + int(base) for s, base in zip(shards, first, strict=False)]
        ).to(device)
        self._usable: list[Tensor] = []
        start = 0
        for name, group in caches.items():
            count = sum(len(shard.pairs) for shard in group)
            fewest = self._counts[self._pairs[start : start + count]].amin(dim=1)
            rows = (fewest >= config.keypoints).nonzero().squeeze(1) + start
            if len(rows) == 0:
                raise DataError(
                    f"cache {name} has no pair with {config.keypoints} keypoints in both views: "
                    f"make it with random_keypoints, or ask for fewer"
                )
            if len(rows) < count:
                _LOG.warning("%s: %d pairs with too few keypoints", name, count - len(rows))
            self._usable.append(rows)
            start += count
        total = sum(weights[name] for name in caches)
        self._probability = [weights[name] / total for name in caches]

    def draw(self, rng: np.random.Generator) -> PairBatch:
        """One batch of ``config.drawn`` pairs, on the device, without waiting for it."""
        g = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        config = self.config
        chosen = self._choose_pairs(rng, g)
        views, (m0, m1) = self._pairs[chosen], (labels[chosen].long() for labels in self._labels)
        swap = self._uniform(g, len(chosen), 1) < 0.5
        views = torch.where(swap, views.flip(1), views)
        m0, m1 = torch.where(swap, m1, m0), torch.where(swap, m0, m1)
        best_first = self._uniform(g, len(chosen), 1) < config.best_first
        kept = [self._choose_keypoints(views[:, side], best_first, g) for side in (0, 1)]
        m0, m1 = _subset(m0, kept[0], kept[1]), _subset(m1, kept[1], kept[0])
        mirrored = (self._uniform(g, len(chosen), 1) < 0.5) & config.mirror
        sides = []
        for side in (0, 1):
            view, index = views[:, side, None], kept[side]
            points, size = self._keypoints[view, index], self._sizes[views[:, side]]
            x = torch.where(mirrored, size[:, :1] - 1 - points[..., 0], points[..., 0])
            scores = self._scores[view, index]
            if config.score_noise:
                noise = torch.randn(scores.shape, device=self._device, generator=g)
                scores = (scores * (config.score_noise * noise).exp()).clamp(max=1)
            descriptors = self._descriptors[view, index].float()
            sides.append((torch.stack([x, points[..., 1]], dim=2), scores, descriptors, size))
        d0, d1 = sides[0][2], sides[1][2]
        if config.repetition:
            d0, d1 = self._repeat(d0, d1, m0, m1, g)
        batch = PairBatch(
            keypoints0=sides[0][0], scores0=sides[0][1], descriptors0=d0, size0=sides[0][3],
            mask0=None,
            keypoints1=sides[1][0], scores1=sides[1][1], descriptors1=d1, size1=sides[1][3],
            mask1=None,
            matches0=m0, matches1=m1,
        )  # fmt: skip
        return config.mined(batch)

    def _choose_pairs(self, rng: np.random.Generator, g: torch.Generator) -> Tensor:
        """Rows of the pairs of a batch; every cache gives its share, on average."""
        counts = rng.multinomial(self.config.drawn, self._probability)
        return torch.cat(
            [
                rows[torch.randint(len(rows), (int(n),), device=self._device, generator=g)]
                for rows, n in zip(self._usable, counts, strict=True)
            ]
        )

    def _choose_keypoints(self, views: Tensor, best_first: Tensor, g: torch.Generator) -> Tensor:
        """Indices (P, K): the best of which some are dropped, or random ones."""
        number = self._scores.shape[1]
        rank = torch.arange(number, device=self._device).expand(len(views), number)
        dropped = self._uniform(g, *rank.shape) < self.config.drop
        key = torch.where(
            best_first, rank + dropped * number, number * self._uniform(g, *rank.shape)
        )
        key = torch.where(rank < self._counts[views, None], key, 3.0 * number)
        return key.topk(self.config.keypoints, dim=1, largest=False).indices

    def _repeat(
        self, d0: Tensor, d1: Tensor, m0: Tensor, m1: Tensor, g: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Blend a share of the descriptors of half of the pairs with those of other matches.

        A match is blended with one other match in both images; keypoints without a partner become
        decoys of a match.
        """
        pairs, number = m0.shape
        share = self.config.repetition * self._uniform(g, pairs, 1)
        share = share * (self._uniform(g, pairs, 1) < 0.5)
        matched = m0 >= 0
        count = matched.sum(1, keepdim=True)
        copies = (share * count).long()
        # Matches in random order: the first ``copies`` are blended, models come from the rest.
        order = torch.where(matched, self._uniform(g, pairs, number), 2.0).argsort(dim=1)
        rest = (count - copies).clamp(min=1)

        def models() -> Tensor:
            place = copies + (self._uniform(g, pairs, number) * rest).long()
            return order.gather(1, place.clamp(max=number - 1))

        def alike(where: Tensor) -> Tensor:
            return torch.where(where, 0.5 + 0.5 * self._uniform(g, pairs, number), 0.0)

        position = torch.empty_like(order).scatter_(1, order, _ranks(order))
        enough = count > 1
        part0 = alike(matched & (position < copies) & enough)
        model0 = models()
        partner = m1.clamp(min=0)
        part1 = torch.where(m1 >= 0, part0.gather(1, partner), 0.0)
        model1 = m0.gather(1, model0.gather(1, partner))
        decoys = models(), m0.gather(1, models())
        for side, (part, model, labels) in enumerate(((part0, model0, m0), (part1, model1, m1))):
            lone = (labels < 0) & enough & (self._uniform(g, pairs, number) < share)
            part = torch.where(lone, alike(lone), part)
            # A model's own partner: without matches there is none, and ``part`` is zero.
            model = torch.where(lone, decoys[side], model).clamp(min=0)
            if side == 0:
                d0 = _blend(d0, model, part)
            else:
                d1 = _blend(d1, model, part)
        return d0, d1

    def _uniform(self, g: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self._device, generator=g)


def _gather(shards: Sequence[Shard], name: str, device: torch.device) -> Tensor:
    """One tensor of all shards on ``device``, without a second copy of it in memory."""
    parts = [getattr(shard, name) for shard in shards]
    widest = max((part.shape[1] for part in parts if part.dim() > 1), default=0)
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    if len(shape) > 1:
        shape = (shape[0], widest, *shape[2:])
    fill = -2 if name.startswith("matches") else 0
    whole = torch.full(shape, fill, dtype=parts[0].dtype, device=device)
    start = 0
    for part in parts:
        target = whole[start : start + len(part)]
        (target[:, : part.shape[1]] if part.dim() > 1 else target).copy_(part)
        start += len(part)
    return whole


def _subset(matches: Tensor, kept: Tensor, kept_partners: Tensor) -> Tensor:
    """Labels (P, N) of the kept keypoints (P, K), with partners renumbered or unmatched (-1)."""
    new_index = torch.full_like(matches, -1)
    new_index.scatter_(1, kept_partners, _ranks(kept_partners))
    chosen = matches.gather(1, kept)
    return torch.where(chosen >= 0, new_index.gather(1, chosen.clamp(min=0)), chosen)


def _ranks(like: Tensor) -> Tensor:
    """0, 1, ... along dimension 1, in the shape of ``like`` (P, N)."""
    return torch.arange(like.shape[1], device=like.device).expand_as(like)


def _blend(descriptors: Tensor, model: Tensor, part: Tensor) -> Tensor:
    """Unit descriptors (P, K, D), of which a ``part`` (P, K) is taken from the ``model`` (P, K)."""
    index = model[..., None].expand_as(descriptors)
    mixed = descriptors + part[..., None] * (descriptors.gather(1, index) - descriptors)
    return torch.where(part[..., None] > 0, F.normalize(mixed, dim=2), descriptors)
