"""DISK, of the LightGlue package, as a front-end."""

from __future__ import annotations

from typing import Any

import torch

from superglue_ros.config import Config
from superglue_ros.frontends.lightglue_package import PackageFrontEnd, lightglue_package


def make(config: Config, device: torch.device) -> DiskFrontEnd:
    """Raises :class:`ConfigError` where the package is missing."""
    return DiskFrontEnd(config.front_end, device)


class DiskFrontEnd(PackageFrontEnd):
    """DISK."""

    detector = "disk"

    def _create(self, max_keypoints: int) -> Any:
        return lightglue_package().DISK(max_num_keypoints=max_keypoints)
