"""SuperGlue's objective: the negative log likelihood of the labels of pairs (paper, eq. 10)."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.superglue import SuperGlue, initialise_as_optimal_matching
from superglue_ros.networks.weights import load_superglue, load_superpoint, save
from superglue_ros.training.checkpoint import WEIGHTS
from superglue_ros.training.data.batches import (
    PairBatch,
    PairSample,
    PairSampler,
    augment,
    collate,
    read_pair,
)
from superglue_ros.training.data.cache import Shard, make_shard, read_cache
from superglue_ros.training.data.drawn_pairs import DrawnPairs, PairSource, describe
from superglue_ros.training.data.loading import to_device
from superglue_ros.training.data.resident import ResidentPairs
from superglue_ros.training.data.view_features import ViewFeatures, superpoint_features
from superglue_ros.training.data.views import ScaledViews
from superglue_ros.training.distributed import training_device
from superglue_ros.training.growth import grow
from superglue_ros.training.modes import in_evaluation
from superglue_ros.training.objectives.assignment import Assigned, Side, assign, head_losses
from superglue_ros.training.objectives.loss import (
    match_quality,
    matching_loss,
    pair_losses,
    regularised,
)
from superglue_ros.training.precision import resolve_dtype
from superglue_ros.training.recipes import Stage, SuperGlueRecipe

_VALIDATION_PAIRS = 96
_VALIDATION_ITERATIONS = 50
_START_SHARDS = 8
_START_PAIRS = 8  # for choosing scale, dustbin and projection of the start
_START_FACTORS = (0.5, 1.0, 2.0, 3.0)  # of the recipe's scale
_START_COSINES = (0.3, 0.5, 0.6, 0.7, 0.8)  # where a match becomes likelier than none


@dataclass(frozen=True, eq=False)
class StagePairs:
    """Pairs drawn for a step, and their stage."""

    pairs: DrawnPairs
    stage: Stage


class SuperGlueObjective:
    """SuperGlue on cached features or on pairs drawn at every step, by the stages of a recipe."""

    def __init__(self, recipe: SuperGlueRecipe) -> None:
        if not recipe.stages:
            raise ConfigError("the recipe has no stages: give at least one")
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.descriptor_kind = ""
        self._ends = np.cumsum([stage.steps for stage in recipe.stages])
        self._sources: dict[int, PairSampler | ResidentPairs | PairSource] = {}
        self.device = training_device(recipe.loop.device)
        self._dtype = resolve_dtype(recipe.loop.precision, self.device)
        self._engine: SuperPointEngine | None = None
        if any(stage.views is not None for stage in recipe.stages):
            detector = load_superpoint(recipe.detector)
            self.descriptor_kind = detector.kind
            self._engine = SuperPointEngine(detector.network, self.device, self._dtype)
        first = self._first_shards()
        self.network = _start(recipe, first).to(self.device)
        if recipe.start == "matching":
            self._calibrate(first)
        self.network.train()
        if recipe.frozen_batch_norm:
            _freeze_batch_norm(self.network)
        if recipe.gradient_checkpointing:
            enable_gradient_checkpointing(self.network)
        self._validation = self._read(recipe.validation) if recipe.validation else []

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return int(self._ends[-1])

    def architecture(self) -> dict[str, Any]:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        values = asdict(self.network.config)
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {**plain, "descriptor_kind": self.descriptor_kind}

    @property
    def capturable(self) -> bool:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        return self.recipe.resident and self.device.type == "cuda"

    def write_weights(self, network: Any, folder: Path) -> None:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        provenance = "trained with superglue-ros train"
        save(network, folder / WEIGHTS, self.descriptor_kind, provenance, half=True)

    def parameters(self) -> list[nn.Parameter]:
        """All of the network's."""
        return list(self.network.parameters())

    def stage(self, step: int) -> str:
        """Name of the stage at ``step``."""
        return self.recipe.stages[self._stage_index(step)].name

    def stage_end(self, step: int) -> int | None:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        index = self._stage_index(step)
        self._source(index)  # read here once, not in every worker process
        return int(self._ends[index]) if index + 1 < len(self._ends) else None

    def draw(self, step: int, rng: np.random.Generator) -> PairBatch | StagePairs:
        """A batch of the stage's caches, or pairs of views drawn with ``rng``."""
        index = self._stage_index(step)
        drawn = self._source(index).draw(rng)
        if isinstance(drawn, DrawnPairs):
            return StagePairs(drawn, self.recipe.stages[index])
        return drawn

    def loss(self, batch: PairBatch | StagePairs) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of one batch, over the stage's scales; precision and recall in per cent."""
        batches = self._describe(batch) if isinstance(batch, StagePairs) else [batch]
        terms, found = zip(*(self._loss(one) for one in batches), strict=True)
        loss = torch.stack(terms).mean() if len(terms) > 1 else terms[0]
        numbers = {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}
        return regularised(self.recipe.loss, loss, self.network.parameters()), numbers

    def _loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the pairs, with that on moved keypoints; numbers worth reporting."""
        batch = self._hardest(to_device(batch, self.device))
        moves = self.recipe.adversarial
        if not moves.epsilon:
            return self._likelihood(batch)
        points = [x.clone().requires_grad_() for x in (batch.keypoints0, batch.keypoints1)]
        batch = replace(batch, keypoints0=points[0], keypoints1=points[1])
        loss, numbers = self._likelihood(batch)
        gradients = torch.autograd.grad(loss, points, retain_graph=True)
        moved = [
            point.detach() + moves.epsilon * size.amax(dim=1)[:, None, None] * gradient.sign()
            for point, gradient, size in zip(
                points, gradients, (batch.size0, batch.size1), strict=True
            )
        ]
        against, _ = self._likelihood(replace(batch, keypoints0=moved[0], keypoints1=moved[1]))
        numbers["moved"] = against.detach()
        return loss + moves.weight * against, numbers

    def _likelihood(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        assigned = self._forward(self.network, batch, self.recipe.sinkhorn_iterations)
        return self._pair_losses(assigned, batch).mean(), _numbers(assigned, batch)

    def _pair_losses(self, assigned: Assigned, batch: PairBatch) -> Tensor:
        config, assignment = self.recipe.loss, assigned.log_assignment
        per_pair = pair_losses(config, assignment, batch.matches0, batch.matches1, batch.mask0)
        heads = head_losses(config, assigned, batch.matches0)
        return per_pair if heads is None else per_pair + heads

    @torch.no_grad()
    def _hardest(self, batch: PairBatch) -> PairBatch:
        """The pairs of the largest loss, where the stage mines them (technical report)."""
        if not batch.hardest:
            return batch
        with in_evaluation(self.network):
            assigned = self._forward(self.network, batch, self.recipe.sinkhorn_iterations)
        return batch.select(self._pair_losses(assigned, batch).topk(batch.hardest).indices)

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Precision and recall in per cent on a fixed part of the validation cache."""
        pairs = [(shard, i) for shard in self._validation for i in range(len(shard.pairs))]
        pairs = pairs[:: max(1, len(pairs) // _VALIDATION_PAIRS)][:_VALIDATION_PAIRS]
        found: list[dict[str, Tensor]] = []
        for shard, index in pairs:
            batch = to_device(collate([read_pair(shard, index)]), self.device)
            found.append(_numbers(self._forward(network, batch, _VALIDATION_ITERATIONS), batch))
        if not found:
            return {}
        return {f"validation {k}": float(np.mean([float(f[k]) for f in found])) for k in found[0]}

    @torch.no_grad()
    def _calibrate(self, shards: list[Shard]) -> None:
        """Choose scale and dustbin of the optimal-matching start by their loss on one batch.

        Adam moves the dustbin by no more than the learning rate per step: from 1 it would never
        reach the value that scores of tens need.
        """
        pairs = [(shard, i) for shard in shards for i in range(len(shard.pairs))]
        pairs = pairs[:_START_PAIRS]
        if not pairs:
            raise DataError(
                "the first stage has no pair with enough matches: make its cache again, or draw "
                "views that share more"
            )
        batch = to_device(collate([read_pair(shard, i) for shard, i in pairs]), self.device)
        self.network.eval()
        final, dustbin = self.network.final, self.network.dustbin
        given = final.weight.clone()
        best = (float("inf"), 1.0, 0.0)
        for factor in _START_FACTORS:
            final.weight.copy_(given * factor**0.5)
            for cosine in _START_COSINES:
                value = cosine * factor * self.recipe.start_scale
                dustbin.fill_(value)
                assignment = self._forward(
                    self.network, batch, self.recipe.sinkhorn_iterations
                ).log_assignment
                loss = matching_loss(assignment, batch.matches0, batch.matches1, "balanced")
                best = min(best, (float(loss.mean()), factor, value))
        final.weight.copy_(given * best[1] ** 0.5)
        dustbin.fill_(best[2])

    def _forward(self, network: Any, batch: PairBatch, iterations: int) -> Assigned:
        first, second = sides(batch)
        return assign(network, first, second, iterations, self._dtype)

    def _source(self, index: int) -> PairSampler | ResidentPairs | PairSource:
        if index not in self._sources:
            stage = self.recipe.stages[index]
            if stage.views is None:
                self._sources = {}  # makes room for the views of this stage
                caches = {name: self._read(name) for name in stage.caches}
                self._sources = {index: self._sampler(caches, stage)}
            else:
                self._sources = {index: PairSource(stage.views, stage.sampling.drawn)}
        return self._sources[index]

    def _sampler(self, caches: dict[str, list[Shard]], stage: Stage) -> PairSampler | ResidentPairs:
        if self.recipe.resident:
            return ResidentPairs(caches, stage.caches, stage.sampling, self.device)
        return PairSampler(caches, stage.caches, stage.sampling)

    def _first_shards(self) -> list[Shard]:
        """Features for the start: the first cache, or a few drawn pairs."""
        stage = self.recipe.stages[0]
        if stage.views is None:
            return self._read(next(iter(stage.caches)), _START_SHARDS)
        assert self._engine is not None
        rng = np.random.default_rng(self.recipe.loop.seed)
        pairs = PairSource(stage.views, _START_PAIRS).draw(rng)
        filler = rng if stage.views.random_keypoints else None
        extract = functools.partial(
            superpoint_features,
            self._engine,
            max_keypoints=stage.views.keypoints,
            rng=filler,
        )
        return [make_shard(extract, pairs.sets, stage.views.keypoints, stage.views.labels)]

    def _describe(self, batch: StagePairs) -> list[PairBatch]:
        """The features of pairs of views as batches, one a scale, in main memory."""
        stage = batch.stage
        assert stage.views is not None
        assert self._engine is not None
        batches = []
        for scale in stage.scales:
            pairs = batch.pairs
            if scale != 1.0:
                pairs = replace(pairs, sets=[ScaledViews.of(one, scale) for one in pairs.sets])
            found = describe(self._engine, pairs, stage.views)
            images = (view_set.images for view_set in pairs.sets)
            samples = [
                PairSample((_side(pair.views[0], first), _side(pair.views[1], second)), pair.labels)
                for pair, (first, second) in zip(found, images, strict=True)
            ]
            augmented = [augment(sample, pairs.rng, stage.sampling) for sample in samples]
            batches.append(stage.sampling.mined(collate(augmented)))
        return batches

    def _stage_index(self, step: int) -> int:
        index = int(np.searchsorted(self._ends, step, side="right"))
        return min(index, len(self._ends) - 1)

    def _read(self, folder: str, limit: int | None = None) -> list[Shard]:
        shards, kind = read_cache(Path(folder), limit)
        if self.descriptor_kind and kind != self.descriptor_kind:
            raise DataError(
                f"cache {folder} holds features of {kind}, the others of "
                f"{self.descriptor_kind}: make all caches with one detector"
            )
        self.descriptor_kind = kind
        return shards


def enable_gradient_checkpointing(network: SuperGlue) -> None:
    """Recompute every layer in the backward pass instead of keeping its intermediate values.

    Batch norm then sees every batch twice, so its running statistics move a little faster.
    """
    for layer in network.gnn:
        layer.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint, layer.forward, use_reentrant=False
        )


def _freeze_batch_norm(network: SuperGlue) -> None:
    """Fix the batch norm statistics: training then uses the network as in inference."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()


def _start(recipe: SuperGlueRecipe, shards: list[Shard]) -> SuperGlue:
    config = recipe.network
    dim = shards[0].descriptors.shape[2]
    if config.descriptor_dim != dim:
        raise ConfigError(
            f"network.descriptor_dim is {config.descriptor_dim}, the cached descriptors have {dim}"
        )
    network = SuperGlue(config)
    if recipe.start == "matching":
        initialise_as_optimal_matching(network, recipe.start_scale)
        if config.descriptor_dim != config.width:
            _project_on_principal_components(network, shards)
    elif recipe.start != "random":
        grow(network, load_superglue(recipe.start).network)
    return network.requires_grad_(True)


def _project_on_principal_components(network: SuperGlue, shards: list[Shard]) -> None:
    """Set the input projection to preserve the cosines of descriptors as well as possible.

    It also scales the elements of unit-length descriptors to unit size, and the final projection
    reverts that: the layers' messages have unit size from the first steps on, and would dominate
    anything smaller.
    """
    some = torch.cat([shard.descriptors[:, ::8].float().flatten(0, 1) for shard in shards[:8]])
    _, vectors = torch.linalg.eigh(some.T @ some)
    projection, width = network.input, network.config.width
    if isinstance(projection, nn.Linear):
        with torch.no_grad():
            projection.weight.copy_(width**0.5 * vectors.flip(1)[:, :width].T)
            nn.init.zeros_(projection.bias)
            network.final.weight.div_(width**0.5)


def _side(view: ViewFeatures, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = torch.tensor([float(image.shape[1]), float(image.shape[0])])
    return view.keypoints.cpu(), view.scores.cpu(), view.descriptors.float().cpu(), size


def sides(batch: PairBatch) -> tuple[Side, Side]:
    """Both images of a batch."""
    fields = ("keypoints", "scores", "descriptors", "size", "mask")
    first, second = (
        Side(**{name: getattr(batch, f"{name}{side}") for name in fields}) for side in (0, 1)
    )
    return first, second


def _numbers(assigned: Assigned, batch: PairBatch) -> dict[str, Tensor]:
    """Precision and recall in per cent; the mean number of iterations where it is learned."""
    precision, recall = match_quality(assigned.log_assignment, batch.matches0)
    found = {"P": 100 * precision.mean(), "R": 100 * recall.mean()}
    if assigned.iterations is not None:
        found["iterations %"] = 100 * assigned.iterations.detach().mean()
    return found
