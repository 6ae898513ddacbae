"""SuperPoint and SuperGlue as a matcher of vismatch (formerly image-matching-models).

    from superglue_ros_vismatch import SuperglueRosMatcher

    matcher = SuperglueRosMatcher(device="cuda", max_num_keypoints=2048)
    result = matcher("a.jpg", "b.jpg")  # num_inliers, H, matched_kpts0, matched_kpts1, ...

Everything of vismatch that takes a matcher takes this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vismatch.base_matcher import BaseMatcher

from superglue_ros import ImageMatcher
from superglue_ros.config import Config
from superglue_ros.settings import build


class SuperglueRosMatcher(BaseMatcher):
    """The packaged networks; ``settings`` are those of this package, as a nested mapping."""

    def __init__(
        self,
        device: str = "cpu",
        max_num_keypoints: int = 2048,
        settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, **kwargs)
        given = {"device": device, "front_end": {"max_keypoints": max_num_keypoints}}
        self._matcher = ImageMatcher(build(Config, given | (settings or {})))

    def _forward(self, img0: torch.Tensor, img1: torch.Tensor) -> tuple[np.ndarray | None, ...]:
        """RGB (3, H, W) in [0, 1]; matched and all keypoints (x, y), descriptors, confidences."""
        pair = self._matcher.match(img0, img1)
        return (
            pair.points0,
            pair.points1,
            pair.features0.keypoints,
            pair.features1.keypoints,
            pair.features0.descriptors,
            pair.features1.descriptors,
            pair.scores,
        )
