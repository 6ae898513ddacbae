"""OpenCV SIFT as a front-end."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from superglue_ros.config import Config
from superglue_ros.frontends.opencv import OpenCvFrontEnd
from superglue_ros.types import FloatArray


def make(config: Config, device: torch.device) -> SiftFrontEnd:
    """On the CPU, whatever ``device`` is."""
    return SiftFrontEnd(config.front_end)


class SiftFrontEnd(OpenCvFrontEnd):
    """SIFT with root-normalised descriptors (Arandjelovic and Zisserman, CVPR 2012)."""

    detector = "sift-root"
    descriptor_dim = 128
    exact = True

    def _create(self, max_keypoints: int) -> Any:
        return cv2.SIFT_create(nfeatures=max_keypoints)  # type: ignore[attr-defined]

    def _diameter_px(self) -> float:
        return 4.0  # the size of most of SIFT's own keypoints

    def _converted(self, descriptors: Any) -> FloatArray:
        return root_normalise(descriptors)


def root_normalise(descriptors: FloatArray) -> FloatArray:
    """RootSIFT: L1-normalise and take the square root; rows of zeros stay zero."""
    total = np.abs(descriptors).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1e-12)), np.float32)
