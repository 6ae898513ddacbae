"""DISK, of the LightGlue package, as a front-end."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from superglue_ros.config import Config
from superglue_ros.frontends.lightglue_package import PackageFrontEnd, lightglue_package

_MULTIPLE = 16  # its network halves the image four times


def make(config: Config, device: torch.device) -> DiskFrontEnd:
    """Raises :class:`ConfigError` where the package is missing."""
    return DiskFrontEnd(config.front_end, device)


class DiskFrontEnd(PackageFrontEnd):
    """DISK (Tyszkiewicz et al., 2020). Scores are probabilities, from the network's logits."""

    detector = "disk"

    def _create(self, max_keypoints: int) -> Any:
        return lightglue_package().DISK(max_num_keypoints=max_keypoints)

    def _probability(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.sigmoid()

    def _sample(self, image: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))
        _, dense = self._network.model.heatmap_and_dense_descriptors(padded)
        last = pixels.new_tensor([padded.shape[3] - 1, padded.shape[2] - 1])
        grid = (2 * pixels / last - 1)[None, None]
        sampled = F.grid_sample(dense, grid, align_corners=True, padding_mode="border")
        return F.normalize(sampled[0, :, 0].T, dim=1)
