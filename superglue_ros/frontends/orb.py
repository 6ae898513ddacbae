"""OpenCV ORB as a front-end."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from superglue_ros.config import Config
from superglue_ros.frontends.base import GreyImage
from superglue_ros.frontends.opencv import OpenCvFrontEnd
from superglue_ros.types import FloatArray


def make(config: Config, device: torch.device) -> OrbFrontEnd:
    """On the CPU, whatever ``device`` is."""
    return OrbFrontEnd(config.front_end)


class OrbFrontEnd(OpenCvFrontEnd):
    """ORB; the 256 bits as 0/1 values, so that distances are roots of Hamming distances."""

    detector = "orb"
    descriptor_dim = 256

    def _create(self, max_keypoints: int) -> Any:
        return cv2.ORB_create(nfeatures=max_keypoints)  # type: ignore[attr-defined]

    def _diameter_px(self) -> float:
        return float(self._extractor.getPatchSize())

    def _fits(self, image: GreyImage) -> bool:
        return min(image.shape) > 2 * self._extractor.getEdgeThreshold()

    def _converted(self, descriptors: Any) -> FloatArray:
        return np.unpackbits(descriptors, axis=1).astype(np.float32)
