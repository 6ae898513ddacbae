"""Batches of cached pairs: random subsets, padding and masks, pairs grouped by keypoint count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import MatchLabels, subset
from superglue_ros.settings import setting
from superglue_ros.training.data.cache import Shard


@dataclass(frozen=True)
class SamplingConfig:
    """How pairs become training samples."""

    keypoints: int = setting(512, "Keypoints per image; a random subset of larger sets.", low=2)
    pairs: int = setting(16, "Pairs per batch and process.", low=1)
    bucket: int = setting(
        128, "Step of the keypoint count: a batch of cached pairs holds pairs of one step.", low=1
    )
    drop: float = setting(0.1, "Part of the keypoints left out at random.", low=0.0, high=0.9)
    best_first: float = setting(
        0.5, "How often the best keypoints are kept, as at inference, instead of random ones.",
        low=0.0, high=1.0,
    )  # fmt: skip
    score_noise: float = setting(0.1, "Standard deviation of the logarithm of the scores.", low=0.0)
    mirror: bool = setting(True, "Mirror the positions of both images together, half of the time.")
    repetition: float = setting(
        0.0, "In half of the pairs: largest part of the keypoints that are made to look like "
        "others, as on repeated texture: only their positions tell them apart.",
        low=0.0, high=0.9,
    )  # fmt: skip
    hard_percentile: float = setting(
        0.0, "So many more pairs are drawn that those with a loss above this percentile are as "
        "many as pairs says; only they are trained on. 0: every pair drawn is.",
        low=0.0, high=0.95,
    )  # fmt: skip

    @property
    def drawn(self) -> int:
        """Pairs drawn for a step, of which the hardest :attr:`pairs` are trained on."""
        return math.ceil(self.pairs / (1 - self.hard_percentile) - 1e-9)

    def mined(self, batch: PairBatch) -> PairBatch:
        """``batch`` with the number of its pairs that are trained on."""
        return replace(batch, hardest=self.pairs) if self.hard_percentile else batch


@dataclass(frozen=True, eq=False)
class PairBatch:
    """P pairs, padded: what :meth:`SuperGlue.forward` takes, and the labels.

    ``matches0`` (P, M), ``matches1`` (P, N) int64 with -2 in the padding; masks are None where
    nothing is padded. ``hardest``: how many pairs are trained on, those of the largest loss; 0 =
    all.
    """

    keypoints0: Tensor
    scores0: Tensor
    descriptors0: Tensor
    size0: Tensor
    mask0: Tensor | None
    keypoints1: Tensor
    scores1: Tensor
    descriptors1: Tensor
    size1: Tensor
    mask1: Tensor | None
    matches0: Tensor
    matches1: Tensor
    hardest: int = 0

    def select(self, pairs: Tensor) -> PairBatch:
        """The pairs of these indices (K,)."""
        chosen = {k: v[pairs] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **chosen, hardest=0)


class PairSampler:
    """Draws batches from weighted caches; a batch depends only on the generator."""

    def __init__(
        self,
        caches: Mapping[str, Sequence[Shard]],
        weights: Mapping[str, float],
        config: SamplingConfig,
    ) -> None:
        """``weights``: how often each of ``caches`` is drawn from."""
        self.config = config
        self._buckets: list[list[tuple[Shard, int]]] = []
        probability = []
        for name, shards in caches.items():
            buckets = group_by_size(shards, config.bucket)
            total = sum(len(bucket) for bucket in buckets)
            if total == 0:
                raise DataError(f"cache {name} has no pair with enough matches: make it again")
            self._buckets += buckets
            probability += [weights[name] * len(bucket) / total for bucket in buckets]
        self._probability = np.array(probability) / sum(probability)

    def draw(self, rng: np.random.Generator) -> PairBatch:
        """One batch of pairs of similar size."""
        bucket = self._buckets[rng.choice(len(self._buckets), p=self._probability)]
        chosen = rng.integers(len(bucket), size=self.config.drawn)
        pairs = [read_pair(*bucket[i]) for i in chosen]
        return self.config.mined(collate([augment(pair, rng, self.config) for pair in pairs]))


@dataclass(frozen=True, eq=False)
class PairSample:
    """One pair without padding: per side (n, 2), (n,), (n, D), (2,), and the labels."""

    sides: tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
    labels: MatchLabels


def draw_pairs(
    buckets: Sequence[Sequence[tuple[Shard, int]]], count: int, rng: np.random.Generator
) -> list[PairSample]:
    """``count`` pairs of one of ``buckets``, each bucket as often as its share of the pairs."""
    sizes = np.array([len(bucket) for bucket in buckets], np.float64)
    bucket = buckets[rng.choice(len(buckets), p=sizes / sizes.sum())]
    return [read_pair(*bucket[i]) for i in rng.integers(len(bucket), size=count)]


def collate(samples: Sequence[PairSample]) -> PairBatch:
    """Pad the samples to the largest of them."""
    fields: dict[str, Any] = {}
    for side in (0, 1):
        keypoints, scores, descriptors, sizes = zip(*(s.sides[side] for s in samples), strict=True)
        length = max(len(one) for one in scores)
        mask = torch.stack([torch.arange(length) < len(one) for one in scores])
        labels = [(s.labels.matches0, s.labels.matches1)[side] for s in samples]
        matches = [_pad(torch.from_numpy(one).long(), length, -2) for one in labels]
        fields |= {
            f"keypoints{side}": torch.stack([_pad(one, length) for one in keypoints]),
            f"scores{side}": torch.stack([_pad(one, length) for one in scores]),
            f"descriptors{side}": torch.stack([_pad(one, length) for one in descriptors]),
            f"size{side}": torch.stack(sizes),
            f"mask{side}": None if mask.all() else mask,
            f"matches{side}": torch.stack(matches),
        }
    return PairBatch(**fields)


def read_pair(shard: Shard, index: int) -> PairSample:
    """Pair ``index`` of a shard unchanged: all keypoints, in order."""
    i, j = shard.pairs[index].tolist()
    m, n = int(shard.counts[i]), int(shard.counts[j])
    labels = MatchLabels(
        shard.matches0[index, :m].int().numpy(), shard.matches1[index, :n].int().numpy()
    )
    return PairSample((_side(shard, i, slice(m)), _side(shard, j, slice(n))), labels)


def augment(whole: PairSample, rng: np.random.Generator, config: SamplingConfig) -> PairSample:
    """A training sample of a pair: random image order, random subset of the keypoints."""
    if rng.random() < 0.5:
        whole = PairSample(
            (whole.sides[1], whole.sides[0]),
            MatchLabels(whole.labels.matches1, whole.labels.matches0),
        )
    best_first = rng.random() < config.best_first
    kept = [_choose(len(side[1]), rng, config, best_first) for side in whole.sides]
    mirrored = config.mirror and rng.random() < 0.5
    sides = []
    for (keypoints, scores, descriptors, size), keep in zip(whole.sides, kept, strict=True):
        index_tensor = torch.from_numpy(keep)
        points, values = keypoints[index_tensor], scores[index_tensor]
        if mirrored:
            points = torch.stack([size[0] - 1 - points[:, 0], points[:, 1]], dim=1)
        if config.score_noise:
            noise = rng.normal(0, config.score_noise, len(values)).astype(np.float32)
            values = (values * torch.from_numpy(noise).exp()).clamp(max=1)
        sides.append((points, values, descriptors[index_tensor], size))
    sample = PairSample((sides[0], sides[1]), subset(whole.labels, kept[0], kept[1]))
    if config.repetition and rng.random() < 0.5:
        _repeat(sample, rng, config.repetition * rng.random())
    return sample


def _repeat(sample: PairSample, rng: np.random.Generator, share: float) -> None:
    """Blend the descriptors of a ``share`` of the keypoints, by half or more, with those of others.

    A match is blended with one other match in both images; keypoints without a partner become
    decoys of a match.
    """
    matches = sample.labels.matches0
    first = rng.permutation(np.flatnonzero(matches >= 0))
    if len(first) < 2:
        return
    copies, models = np.split(first, [int(share * len(first))])
    model = rng.choice(models, len(copies))
    alike = rng.uniform(0.5, 1.0, len(copies))
    _blend(sample.sides[0][2], copies, model, alike)
    _blend(sample.sides[1][2], matches[copies], matches[model], alike)
    for side, labels in enumerate((matches, sample.labels.matches1)):
        alone = rng.permutation(np.flatnonzero(labels < 0))
        decoys = alone[: int(share * len(alone))]
        model = rng.choice(models, len(decoys))
        look = matches[model] if side else model
        _blend(sample.sides[side][2], decoys, look, rng.uniform(0.5, 1.0, len(decoys)))


def _blend(descriptors: Tensor, copies: np.ndarray, models: np.ndarray, alike: np.ndarray) -> None:
    part = torch.from_numpy(alike).float()[:, None]
    mixed = part * descriptors[models] + (1 - part) * descriptors[copies]
    descriptors[copies] = torch.nn.functional.normalize(mixed, dim=1)


def _choose(
    count: int, rng: np.random.Generator, config: SamplingConfig, best_first: bool
) -> np.ndarray:
    """Indices kept of a set sorted by falling score, in random order."""
    available = max(min(count, 2), int(count * (1 - config.drop)))
    number = min(config.keypoints, available)
    pool = count
    if best_first and number < count:
        pool = min(count, max(number, int(number / (1 - config.drop))))
    return rng.permutation(pool)[:number]


def _side(shard: Shard, view: int, keep: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        shard.keypoints[view, keep],
        shard.scores[view, keep],
        shard.descriptors[view, keep].float(),
        shard.sizes[view],
    )


def group_by_size(shards: Sequence[Shard], bucket: int) -> list[list[tuple[Shard, int]]]:
    """Pairs (shard, index) in groups whose larger keypoint count lies within one ``bucket``."""
    groups: dict[int, list[tuple[Shard, int]]] = {}
    for shard in shards:
        if len(shard.pairs) == 0:
            continue
        larger = shard.counts[shard.pairs.long()].amax(dim=1)
        for index, count in enumerate(larger):
            groups.setdefault(int(count) // bucket, []).append((shard, index))
    return [groups[key] for key in sorted(groups)]


def _pad(x: Tensor, length: int, value: float = 0) -> Tensor:
    missing = length - len(x)
    return torch.cat([x, x.new_full((missing, *x.shape[1:]), value)]) if missing else x
