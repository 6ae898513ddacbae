"""End-to-end training (paper, section 5.4): gradients from SuperGlue into the descriptors.

The detector is frozen, and no loss but SuperGlue's is used. The paper keeps a second copy of
SuperPoint for the descriptors; here the shared encoder is frozen too and only the
descriptor head is trained, so that the result is one SuperPoint with unchanged detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import SuperPoint, sample_descriptors
from superglue_ros.networks.weights import load_superglue, load_superpoint
from superglue_ros.training.data.drawn_pairs import DrawnPairs, PairSource, describe
from superglue_ros.training.data.view_features import ViewFeatures
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.assignment import Assigned, Side, assign, head_losses
from superglue_ros.training.objectives.loss import match_quality, pair_losses, regularised
from superglue_ros.training.precision import autocast, channels_last, resolve_dtype
from superglue_ros.training.recipes import EndToEndRecipe


class DescriptorAndMatcher(nn.Module):
    """A SuperPoint, whose descriptor head is trained, and the SuperGlue that uses it."""

    def __init__(self, describe: SuperPoint, match: SuperGlue) -> None:
        super().__init__()
        self.describe = describe
        self.match = match


class EndToEndObjective:
    """SuperGlue and its input descriptors, on pairs drawn at every step."""

    def __init__(self, recipe: EndToEndRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        superpoint = channels_last(load_superpoint(recipe.superpoint).network)
        matcher = load_superglue(recipe.superglue)
        self.device = training_device(recipe.loop.device)
        self.network = DescriptorAndMatcher(superpoint, matcher.network).to(self.device)
        for part in (superpoint.descriptor, matcher.network):
            part.requires_grad_(True)
        # Batch norm statistics are fixed: a step has too few images to estimate them.
        self.network.eval()
        matcher.network.train()
        self._dtype = resolve_dtype(recipe.loop.precision, self.device)
        self._source = PairSource(recipe.views, recipe.pairs)

    def architecture(self) -> dict[str, Any]:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        plain = {**asdict(self.network.describe.config), **asdict(self.network.match.config)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @property
    def capturable(self) -> bool:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        return False

    def write_weights(self, network: nn.Module, folder: Path) -> None:
        """Nothing: new descriptors have no name before ``train export`` gives them one."""

    def parameters(self) -> list[nn.Parameter]:
        """Those of the descriptor head and of the matcher."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def stage(self, step: int) -> str:
        """There is one stage."""
        return "end-to-end"

    def stage_end(self, step: int) -> None:
        """There is one stage."""

    def draw(self, step: int, rng: np.random.Generator) -> DrawnPairs:
        """Pairs drawn with ``rng``, and the generator for their random keypoints."""
        return self._source.draw(rng)

    def loss(self, batch: DrawnPairs) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of the pairs."""
        views, config = self.recipe.views, self.recipe.loss
        images = [image for view_set in batch.sets for image in view_set.images]
        # Made again at every step: the descriptor head has changed.
        engine = SuperPointEngine(self.network.describe, self.device, self._dtype)
        pairs = describe(engine, batch, views)
        maps = self._describe(images)
        terms, precisions, recalls = [], [], []
        for k, pair in enumerate(pairs):
            assigned = self._match(pair.views, maps[2 * k : 2 * k + 2], images[2 * k].shape)
            assignment = assigned.log_assignment
            matches0, matches1 = (
                torch.from_numpy(part).long()[None].to(self.device)
                for part in (pair.labels.matches0, pair.labels.matches1)
            )
            terms.append(pair_losses(config, assignment, matches0, matches1))
            heads = head_losses(config, assigned, matches0)
            if heads is not None:
                terms[-1] = terms[-1] + heads
            precision, recall = match_quality(assignment, matches0)
            precisions.append(float(precision))
            recalls.append(float(recall))
        numbers = {"P": 100 * float(np.mean(precisions)), "R": 100 * float(np.mean(recalls))}
        return regularised(config, torch.cat(terms).mean(), self.parameters()), numbers

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Nothing is held out here: evaluate the exported weights."""
        return {}

    def _describe(self, images: list[Any]) -> Tensor:
        batch = torch.from_numpy(np.stack(images)).to(self.device).unsqueeze(1).float().div(255)
        network = self.network.describe
        with autocast(batch.device, self._dtype):
            return network.describe(batch, network.backbone(batch)).float()

    def _match(
        self, pair: Sequence[ViewFeatures], maps: Tensor, shape: tuple[int, ...]
    ) -> Assigned:
        size = torch.tensor([[float(shape[1]), float(shape[0])]], device=self.device)
        exact = self.network.describe.config.exact_sampling
        sides = []
        for side, view in enumerate(pair):
            keypoints = view.keypoints[None].clone()
            descriptors = sample_descriptors(keypoints, maps[side : side + 1], exact)
            scores = view.scores[None].clone()
            sides.append(
                Side(keypoints=keypoints, scores=scores, descriptors=descriptors, size=size)
            )
        first, second = sides
        return assign(
            self.network.match, first, second, self.recipe.sinkhorn_iterations, self._dtype
        )
