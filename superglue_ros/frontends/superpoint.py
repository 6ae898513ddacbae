"""SuperPoint as a front-end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.data.image import Resized, padded, resize, to_tensor
from superglue_ros.engines.backends import detector_of, superpoint_engine
from superglue_ros.engines.detection import Detected, Detection, Detector
from superglue_ros.engines.precision import short_name
from superglue_ros.engines.resident import hold
from superglue_ros.frontends.base import FrontEnd, GreyImage
from superglue_ros.networks.superpoint import SuperPointConfig, sample_descriptors
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.types import Features, FloatArray


def make(config: Config, device: torch.device) -> SuperPointFrontEnd:
    """With the weights and the engine that ``config`` names."""
    loaded = load_superpoint(config.front_end.weights)
    engine = superpoint_engine(loaded, config, device)
    detector = detector_of(engine, config, device)
    return SuperPointFrontEnd(detector, loaded.kind, loaded.network.config, config.front_end)


class SuperPointFrontEnd(FrontEnd):
    """SuperPoint on the image shrunk to ``max_size``; keypoints in pixels of the original."""

    def __init__(
        self,
        detector: Detector,
        kind: str,
        architecture: SuperPointConfig,
        config: FrontEndConfig,
    ) -> None:
        self.detector = kind
        self.descriptor_dim = architecture.descriptor_dim
        self._exact_sampling = architecture.exact_sampling
        self._detect = detector
        self._config = config

    @property
    def precision(self) -> str:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        return short_name(self._detect.engine)

    @property
    def graphed(self) -> bool:  # type: ignore[override]
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        return self._detect.graphed

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        self._config = config

    def extract(self, image: GreyImage) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        return self.extract_all([image])[0]

    def extract_all(self, images: Sequence[GreyImage]) -> list[Features]:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        resized = [resize(image, self._config.max_size) for image in images]
        config = self._config
        settings = Detection(
            max_keypoints=config.max_keypoints,
            threshold=config.threshold,
            nms_radius=config.nms_radius,
            border=config.border,
            subpixel=config.subpixel,
            exact=self._exact_sampling,
        )
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, one in enumerate(resized):
            by_shape.setdefault(one.image.shape, []).append(index)
        found: dict[int, Features] = {}
        for (height, width), indices in by_shape.items():
            together = np.stack([padded(resized[i].image) for i in indices])
            for i, detected in zip(
                indices, self._detect(together, height, width, settings), strict=True
            ):
                found[i] = self._features(images[i], resized[i], detected)
        return [found[i] for i in range(len(images))]

    def _features(self, image: GreyImage, resized: Resized, detected: Detected) -> Features:
        if detected.on_device is not None:
            hold(detected.descriptors, detected.on_device)
        height, width = image.shape
        return Features(
            keypoints=resized.to_original(detected.keypoints),
            scores=detected.scores,
            width=width,
            height=height,
            detector=self.detector,
            descriptors=detected.descriptors,
        )

    @torch.inference_mode()
    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        resized = resize(image, self._config.max_size)
        device = self._detect.device
        _, dense = self._detect.engine.maps(to_tensor(resized.image, device))
        pixels = torch.from_numpy(resized.to_resized(keypoints)).to(device)
        descriptors = sample_descriptors(pixels[None], dense, self._exact_sampling)[0]
        height, width = image.shape
        return Features(
            keypoints=keypoints,
            scores=np.ones(len(keypoints), np.float32),
            width=width,
            height=height,
            detector=self.detector,
            descriptors=descriptors.float().cpu().numpy(),
        )
