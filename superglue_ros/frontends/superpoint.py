"""SuperPoint as a front-end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.data.image import Resized, resize, to_tensor
from superglue_ros.engines.backends import superpoint_engine
from superglue_ros.engines.precision import MapsImages, short_name
from superglue_ros.frontends.base import FrontEnd, GreyImage
from superglue_ros.networks.superpoint import (
    SuperPointConfig,
    detect_keypoints,
    refine_keypoints,
    sample_descriptors,
)
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.types import Features, FloatArray

_SUBPIXEL_RADIUS = 2


def make(config: Config, device: torch.device) -> SuperPointFrontEnd:
    """With the weights and the engine that ``config`` names."""
    loaded = load_superpoint(config.front_end.weights)
    engine = superpoint_engine(loaded, config, device)
    return SuperPointFrontEnd(engine, loaded.kind, loaded.network.config, config.front_end, device)


class SuperPointFrontEnd(FrontEnd):
    """SuperPoint on the image shrunk to ``max_size``; keypoints in pixels of the original."""

    def __init__(
        self,
        engine: MapsImages,
        kind: str,
        architecture: SuperPointConfig,
        config: FrontEndConfig,
        device: torch.device,
    ) -> None:
        self.detector = kind
        self.descriptor_dim = architecture.descriptor_dim
        self._exact_sampling = architecture.exact_sampling
        self._engine = engine
        self._config = config
        self._device = device

    @property
    def precision(self) -> str:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        return short_name(self._engine.dtype)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        self._config = config

    def extract(self, image: GreyImage) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        return self.extract_all([image])[0]

    @torch.inference_mode()
    def extract_all(self, images: Sequence[GreyImage]) -> list[Features]:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        resized = [resize(image, self._config.max_size) for image in images]
        tensors = [to_tensor(one.image, self._device) for one in resized]
        by_shape: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(tensors):
            by_shape.setdefault(tensor.shape, []).append(index)
        found: dict[int, Features] = {}
        for indices in by_shape.values():
            probability, dense = self._engine.maps(torch.cat([tensors[i] for i in indices]))
            for row, i in enumerate(indices):
                maps = probability[row : row + 1], dense[row : row + 1]
                found[i] = self._detect(images[i], resized[i], *maps)
        return [found[i] for i in range(len(images))]

    def _detect(
        self, image: GreyImage, resized: Resized, probability: torch.Tensor, dense: torch.Tensor
    ) -> Features:
        """The best keypoints of one image from its maps (1, H, W) and (1, D, H/8, W/8)."""
        config = self._config
        height, width = resized.image.shape
        probability = probability[:, :height, :width]
        ((keypoints, values),) = detect_keypoints(
            probability, config.max_keypoints, config.threshold, config.nms_radius, config.border
        )
        if config.subpixel:
            radius = min(_SUBPIXEL_RADIUS, config.nms_radius)  # clear of other keypoints
            keypoints = refine_keypoints(probability[0], keypoints, radius)
        original = resized.to_original(keypoints.cpu().numpy())
        return self._features(image, original, values, keypoints, dense)

    @torch.inference_mode()
    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        resized = resize(image, self._config.max_size)
        _, dense = self._engine.maps(to_tensor(resized.image, self._device))
        pixels = torch.from_numpy(resized.to_resized(keypoints)).to(self._device)
        return self._features(image, keypoints, pixels.new_ones(len(pixels)), pixels, dense)

    def _features(
        self,
        image: GreyImage,
        keypoints: FloatArray,
        scores: torch.Tensor,
        pixels: torch.Tensor,
        dense: torch.Tensor,
    ) -> Features:
        descriptors = sample_descriptors(pixels[None], dense, self._exact_sampling)[0]
        height, width = image.shape
        return Features(
            keypoints=keypoints,
            scores=scores.float().cpu().numpy(),
            width=width,
            height=height,
            detector=self.detector,
            descriptors=descriptors.float().cpu().numpy(),
        )
