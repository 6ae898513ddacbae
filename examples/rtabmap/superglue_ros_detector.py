"""SuperPoint for RTAB-Map's Python detector.

    rtabmap --Vis/FeatureType 15 --PyDetector/Path .../superglue_ros_detector.py

RTAB-Map calls ``init`` once and ``detect`` for every image. Its Python must find superglue_ros.
"""

from __future__ import annotations

import numpy as np

from superglue_ros.config import Config
from superglue_ros.frontends.base import FrontEnd, make_front_end
from superglue_ros.networks.device import resolve_device

front_end: FrontEnd | None = None


def init(cuda: int) -> None:
    """Load the packaged SuperPoint; ``cuda``: on the GPU where there is one."""
    global front_end
    front_end = make_front_end(Config(), resolve_device("auto" if cuda else "cpu"))


def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, 3) float32, x y score, and descriptors (N, D) float32 of a grey uint8 image."""
    assert front_end is not None, "RTAB-Map calls init first"
    # RTAB-Map reuses the memory of the image.
    features = front_end.extract(np.array(image, np.uint8))
    assert features.descriptors is not None
    keypoints = np.column_stack([features.keypoints, features.scores]).astype(np.float32)
    return np.ascontiguousarray(keypoints), np.ascontiguousarray(features.descriptors)
