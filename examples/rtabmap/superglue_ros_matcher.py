"""SuperGlue for RTAB-Map's Python matcher, on the descriptors of superglue_ros_detector.py.

    rtabmap --Vis/CorNNType 6 --PyMatcher/Path .../superglue_ros_matcher.py

RTAB-Map calls ``init`` once and ``match`` for every pair. Its Python must find superglue_ros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError
from superglue_ros.matchers.base import Matcher, make_matcher, match_pair
from superglue_ros.networks.device import resolve_device
from superglue_ros.settings import build
from superglue_ros.types import Features

matcher: Matcher | None = None


def init(descriptor_dim: int, threshold: float, iterations: int, cuda: int, model: str) -> None:
    """Load SuperGlue; ``model`` is a file of weights, any other text stands for the packaged one.

    ``threshold`` and ``iterations`` are PyMatcher/Threshold and PyMatcher/Iterations. Raises
    :class:`ConfigError` on descriptors of another size.
    """
    global matcher
    settings = {
        "weights": model if Path(model).is_file() else "",
        "threshold": round(float(threshold), 6),
        "sinkhorn_iterations": iterations,
    }
    config = build(Config, {"matcher": settings})
    matcher = make_matcher(config, resolve_device("auto" if cuda else "cpu"))
    kind = Features.empty(1, 1, matcher.descriptor_kind or "", descriptor_dim)
    try:
        matcher.prepare(kind)
    except ValueError as error:
        raise ConfigError(f"use superglue_ros_detector.py with this matcher: {error}") from error


def match(
    points_from: np.ndarray,
    points_to: np.ndarray,
    scores_from: np.ndarray,
    scores_to: np.ndarray,
    descriptors_from: np.ndarray,
    descriptors_to: np.ndarray,
    width: int,
    height: int,
) -> np.ndarray:
    """Indices (K, 2) int32 of the matches; keypoints (N, 2) are pixels of a ``width`` x ``height``
    image, scores (N,), descriptors (N, D).
    """
    assert matcher is not None, "RTAB-Map calls init first"
    sides = [
        Features(
            # RTAB-Map reuses the memory of its arrays.
            keypoints=np.array(points, np.float32),
            scores=np.clip(scores, 0, 1),
            width=width,
            height=height,
            detector=matcher.descriptor_kind or "",
            descriptors=np.array(descriptors, np.float32),
        )
        for points, scores, descriptors in (
            (points_from, scores_from, descriptors_from),
            (points_to, scores_to, descriptors_to),
        )
    ]
    found = match_pair(matcher, sides[0], sides[1])
    return np.ascontiguousarray(np.stack([found.index_ref, found.index_query], axis=1), np.int32)
