"""Nearest neighbours filtered by grid-based motion statistics, as a matcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import ConfigError
from superglue_ros.matchers.base import by_score, check_kind, check_same_kind
from superglue_ros.types import Correspondences, Features


def make(config: Config, device: torch.device) -> GmsMatcher:
    """On the CPU, whatever ``device`` is. Raises :class:`ConfigError` where OpenCV has no GMS."""
    if not hasattr(cv2, "xfeatures2d") or not hasattr(cv2.xfeatures2d, "matchGMS"):
        raise ConfigError(
            "this OpenCV has no GMS: pip install opencv-contrib-python-headless instead of "
            "opencv-python"
        )
    return GmsMatcher()


class GmsMatcher:
    """Grid-based motion statistics (Bian et al., CVPR 2017), with rotation and scale.

    If several reference keypoints share a query keypoint, the closest keeps it.
    """

    descriptor_kind: str | None = None
    precision = "float32"

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`; there is nothing to set."""

    def prepare(self, features: Features) -> Features:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        check_kind(features, None, None)
        return features

    def match_pairs(
        self, references: Sequence[Features], queries: Sequence[Features]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        pairs = zip(references, queries, strict=True)
        return [self._match(reference, query) for reference, query in pairs]

    def _match(self, reference: Features, query: Features) -> Correspondences:
        check_same_kind(
            (reference.detector, reference.descriptor_dim), (query.detector, query.descriptor_dim)
        )
        if not len(reference) or not len(query):
            return Correspondences.empty()
        nearest = cv2.BFMatcher(cv2.NORM_L2).match(
            np.asarray(reference.descriptors), np.asarray(query.descriptors)
        )
        kept = cv2.xfeatures2d.matchGMS(  # type: ignore[attr-defined]
            (reference.width, reference.height),
            (query.width, query.height),
            _keypoints(reference),
            _keypoints(query),
            nearest,
            withRotation=True,
            withScale=True,
        )
        best: dict[int, Any] = {}
        for match in sorted(kept, key=lambda m: (m.distance, m.queryIdx)):
            best.setdefault(match.trainIdx, match)
        chosen = list(best.values())
        # OpenCV calls the first set the query; unit-length descriptors lie within distance 2.
        distances = np.array([m.distance for m in chosen], np.float32)
        scale = 2.0 if not len(distances) or distances.max() <= 2 else float(distances.max())
        return by_score(
            np.array([m.queryIdx for m in chosen], np.int32),
            np.array([m.trainIdx for m in chosen], np.int32),
            1 - distances / np.float32(scale),
        )


def _keypoints(features: Features) -> list[cv2.KeyPoint]:
    """OpenCV keypoints, kept inside the image: GMS indexes its grid by position unchecked."""
    limit = [features.width - 1.0, features.height - 1.0]
    return [cv2.KeyPoint(float(x), float(y), 1.0) for x, y in features.keypoints.clip(0, limit)]
