"""ALIKED, of the LightGlue package, as a front-end."""

from __future__ import annotations

from typing import Any

import torch

from superglue_ros.config import Config
from superglue_ros.frontends.lightglue_package import PackageFrontEnd, lightglue_package


def make(config: Config, device: torch.device) -> AlikedFrontEnd:
    """Raises :class:`ConfigError` where the package is missing."""
    return AlikedFrontEnd(config.front_end, device)


class AlikedFrontEnd(PackageFrontEnd):
    """ALIKED (Zhao et al., 2023)."""

    detector = "aliked"
    exact = True

    def _create(self, max_keypoints: int) -> Any:
        # The best keypoints instead of all above a threshold, to compare at an equal budget.
        return lightglue_package().ALIKED(max_num_keypoints=max_keypoints, detection_threshold=0.0)

    def _sample(self, image: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        dense, _ = self._network.extract_dense_map(image)
        last = pixels.new_tensor(image.shape[:1:-1]) - 1  # width - 1, height - 1
        descriptors, _ = self._network.desc_head(dense, [2 * pixels / last - 1])
        sampled: torch.Tensor = descriptors[0]
        return sampled
