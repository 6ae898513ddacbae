"""Features of training views: of SuperPoint, with random keypoints, or of any other front-end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.frontends.base import FrontEnd, GreyImage
from superglue_ros.networks.superpoint import detect_keypoints, sample_descriptors

NMS_RADIUS = 4  # the paper's
SCORE_THRESHOLD = 5e-4  # low: the number of keypoints is the limit, as in the paper


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """Features of one view: ``keypoints`` (N, 2) px, ``scores`` (N,), ``descriptors`` (N, D)."""

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor


Extract = Callable[[Sequence[GreyImage]], list[ViewFeatures]]
"""Features of the views of one set."""


@torch.inference_mode()
def superpoint_features(
    engine: SuperPointEngine,
    images: Sequence[GreyImage],
    max_keypoints: int,
    rng: np.random.Generator | None = None,
    border: int = 4,
    nms_radius: int = NMS_RADIUS,
) -> list[ViewFeatures]:
    """Features of grey images of one size. With ``rng``, random keypoints fill up every set.

    The paper adds random keypoints for efficient batches and robustness (section 4); they have
    score 0 and the descriptor at their position.
    """
    batch = torch.from_numpy(np.stack(images)).unsqueeze(1).float().div(255)
    probability, descriptors = engine.maps(batch)
    detected = detect_keypoints(probability, max_keypoints, SCORE_THRESHOLD, nms_radius, border)
    features = []
    for i, (keypoints, scores) in enumerate(detected):
        missing = max_keypoints - len(keypoints)
        if rng is not None and missing > 0:
            limits = np.array([batch.shape[3], batch.shape[2]]) - border
            extra = torch.from_numpy(rng.integers(border, limits, (missing, 2))).to(keypoints)
            keypoints = torch.cat([keypoints, extra])
            scores = torch.cat([scores, scores.new_zeros(missing)])
        sampled = sample_descriptors(
            keypoints[None], descriptors[i : i + 1], engine.config.exact_sampling
        )
        features.append(ViewFeatures(keypoints, scores, sampled[0]))
    return features


def front_end_features(front_end: FrontEnd, images: Sequence[GreyImage]) -> list[ViewFeatures]:
    """What ``front_end`` detects, best first; no random keypoints, it describes its own only."""
    return [
        ViewFeatures(
            torch.from_numpy(found.keypoints),
            torch.from_numpy(found.scores),
            torch.from_numpy(found.descriptors).float(),
        )
        for found in front_end.extract_all(images)
    ]
