"""SuperPoint on pairs of photographs and rendered views that stay on the device, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.superpoint import (
    SuperPoint,
    keypoint_probability,
    sample_descriptors,
)
from superglue_ros.training.data.corpus import read_grey, read_manifest
from superglue_ros.training.data.device_photometric import distort
from superglue_ros.training.data.pair_geometry import PairGeometry
from superglue_ros.training.data.photograph_pairs import PhotographPairs
from superglue_ros.training.data.view_store import RenderedPairs
from superglue_ros.training.distributed import training_device
from superglue_ros.training.objectives.consensus_loss import (
    centre_of_mass,
    consensus_loss,
    detect,
)
from superglue_ros.training.objectives.single_stage import SingleStage
from superglue_ros.training.objectives.superpoint import start_network
from superglue_ros.training.precision import autocast, channels_last, resolve_dtype
from superglue_ros.training.recipes import ConsensusRecipe

_VALIDATION_BATCHES = 3
_VALIDATION_PAIRS = 4
_RIGHT_PX = 3.0


@dataclass(frozen=True, eq=False)
class ConsensusBatch:
    """Groups of pairs: images (2, B, H, W) in [0, 1] and their geometry."""

    groups: tuple[tuple[Tensor, PairGeometry], ...]


class ConsensusObjective(SingleStage):
    """SuperPoint trained by what two views agree on; see :class:`ConsensusRecipe`."""

    name = "consensus"

    def __init__(self, recipe: ConsensusRecipe) -> None:
        """Raises :class:`DataError` where corpus or views hold nothing of the recipe's size."""
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.device = training_device(recipe.loop.device)
        network = start_network(recipe.start, recipe.network)
        self.network: SuperPoint = channels_last(network.to(self.device)).eval()
        self.network.requires_grad_(recipe.trained == "all")
        self.network.backbone[: recipe.frozen_blocks].requires_grad_(False)
        self.network.detector.requires_grad_(True)
        self._dtype = resolve_dtype(recipe.loop.precision, self.device)
        self._photographs = self._read("train")
        self._held = self._read("test") if self._has("test") else None
        self._rendered = (
            RenderedPairs(Path(recipe.views), self.device, recipe.gigabytes)
            if recipe.views
            else None
        )
        if self._rendered and self._rendered.size != (recipe.width, recipe.height):
            raise ConfigError(
                f"{recipe.views} has views of {self._rendered.size}, the recipe says "
                f"({recipe.width}, {recipe.height}): give width and height of the views"
            )

    def write_weights(self, network: nn.Module, folder: Path) -> None:
        """Nothing: new descriptors have no name before ``train export`` gives them one."""

    def draw(self, step: int, rng: np.random.Generator) -> ConsensusBatch:
        """Pairs of views, changed photometrically, on the device."""
        recipe = self.recipe
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**31)))
        rendered = round(recipe.pairs * recipe.rendered_share) if self._rendered else 0
        groups: list[tuple[Tensor, PairGeometry]] = []
        if recipe.pairs > rendered:
            groups.append(self._pairs(self._photographs, recipe.pairs - rendered, generator))
        if self._rendered and rendered:
            groups.append(self._rendered.draw(rendered, rng))
        return ConsensusBatch(
            tuple((self._changed(images, generator), geometry) for images, geometry in groups)
        )

    def loss(self, batch: ConsensusBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the pairs."""
        total = sum(images.shape[1] for images, _ in batch.groups)
        losses, shown = [], []
        exact = self.network.config.exact_sampling
        for images, geometry in batch.groups:
            logits, descriptors = self._maps(self.network, images)
            share = images.shape[1] / total
            loss, numbers = consensus_loss(logits, descriptors, geometry, self.recipe.loss, exact)
            losses.append(share * loss)
            shown.append({name: share * value for name, value in numbers.items()})
        return torch.stack(losses).sum(), {
            name: torch.stack([numbers[name] for numbers in shown]).sum() for name in shown[0]
        }

    @torch.no_grad()
    def validate(self, network: Any) -> dict[str, float]:
        """Mutual nearest neighbours on test photographs under homographies; a fixed set."""
        if self._held is None:
            return {}
        generator = torch.Generator(self.device).manual_seed(7)
        found = []
        for _ in range(_VALIDATION_BATCHES):
            images, geometry = self._pairs(self._held, _VALIDATION_PAIRS, generator)
            found.append(self._judge(network, self._changed(images, generator), geometry))
        names = ("repeatability", "validation P", "median error px", "right under 1 px")
        return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))

    def _judge(
        self, network: SuperPoint, images: Tensor, geometry: PairGeometry
    ) -> tuple[float, float, float, float]:
        logits, descriptors = self._maps(network, images)
        places, valid, described = [], [], []
        for side in (0, 1):
            probability = keypoint_probability(logits[side])
            pixels, _, there = detect(probability, self.recipe.loss.detections)
            places.append(centre_of_mass(probability, pixels))
            valid.append(there)
            described.append(
                sample_descriptors(places[side], descriptors[side], network.config.exact_sampling)
            )
        projected, visible = geometry.warp(places[0], 0)
        seen = visible & valid[0]
        distance = torch.cdist(projected, places[1]).masked_fill(~valid[1][:, None], torch.inf)
        similarity = (described[0] @ described[1].mT).masked_fill(~valid[1][:, None], -2.0)
        similarity = similarity.masked_fill(~valid[0][:, :, None], -2.0)
        partner, back = similarity.argmax(dim=2), similarity.argmax(dim=1)
        rows = torch.arange(partner.shape[1], device=partner.device)
        mutual = (back.gather(1, partner) == rows) & seen
        error = distance.gather(2, partner[..., None])[..., 0]
        right = mutual & (error < _RIGHT_PX)
        repeated = (distance.amin(dim=2) < _RIGHT_PX) & seen
        return (
            100 * float(repeated.sum() / seen.sum().clamp(min=1)),
            100 * float(right.sum() / mutual.sum().clamp(min=1)),
            float(error[right].median()) if bool(right.any()) else _RIGHT_PX,
            float((right & (error < 1)).sum() / images.shape[1]),
        )

    def _maps(self, network: SuperPoint, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (2, B, 65, h, w) and unit-length descriptors (2, B, D, h, w) of (2, B, H, W)."""
        x = images.flatten(0, 1).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        with autocast(x.device, self._dtype):
            logits, descriptors = network(x)
        split = (2, images.shape[1])
        return logits.float().unflatten(0, split), descriptors.float().unflatten(0, split)

    def _pairs(
        self, source: PhotographPairs, count: int, generator: torch.Generator
    ) -> tuple[Tensor, PairGeometry]:
        recipe = self.recipe
        return source.draw(count, recipe.width, recipe.height, generator, recipe.homography)

    def _changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        flat = distort(images.flatten(0, 1), generator, self.recipe.photometric)
        return flat.unflatten(0, images.shape[:2])

    def _has(self, split: str) -> bool:
        return any(i.photograph for i in read_manifest(self.recipe.corpus, split))

    def _read(self, split: str) -> PhotographPairs:
        images = [i for i in read_manifest(self.recipe.corpus, split) if i.photograph]
        if not images:
            raise DataError(f"{self.recipe.corpus} has no photographs to {split} with")
        pictures = [torch.from_numpy(read_grey(image.path)) for image in images]
        return PhotographPairs(pictures, self.device)
