"""LightGlue, of the package of that name, as a matcher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import ConfigError
from superglue_ros.frontends.lightglue_package import lightglue_package
from superglue_ros.matchers.base import by_score, check_kind
from superglue_ros.types import Correspondences, Features

FEATURES = ("aliked", "disk")
"""Front-ends that LightGlue has free weights for."""


def make(config: Config, device: torch.device) -> LightGlueMatcher:
    """For the features of ``config.front_end``. Raises :class:`ConfigError`."""
    if config.front_end.name not in FEATURES:
        raise ConfigError(
            f"matcher lightglue has no free weights for front-end {config.front_end.name}: "
            f"take front-end {' or '.join(FEATURES)}"
        )
    return LightGlueMatcher(config.front_end.name, device)


class LightGlueMatcher:
    """LightGlue with the package's weights for ALIKED or DISK and its default settings."""

    precision = "float32"

    def __init__(self, features: str, device: torch.device) -> None:
        self.descriptor_kind: str | None = features
        self._network = lightglue_package().LightGlue(features=features).eval().to(device)
        self._device = device

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`; there is nothing to set."""

    def prepare(self, features: Features) -> dict[str, torch.Tensor]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        check_kind(features, self.descriptor_kind, None)
        size = np.array([[features.width, features.height]], np.float32)
        values = {
            "keypoints": features.keypoints[None],
            "descriptors": np.asarray(features.descriptors)[None],
            "image_size": size,
        }
        return {key: torch.from_numpy(v).to(self._device) for key, v in values.items()}

    @torch.inference_mode()
    def match_pairs(
        self,
        references: Sequence[dict[str, torch.Tensor]],
        queries: Sequence[dict[str, torch.Tensor]],
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        pairs = zip(references, queries, strict=True)
        return [self._match(reference, query) for reference, query in pairs]

    def _match(
        self, reference: dict[str, torch.Tensor], query: dict[str, torch.Tensor]
    ) -> Correspondences:
        if not reference["keypoints"].shape[1] or not query["keypoints"].shape[1]:
            return Correspondences.empty()
        found = self._network({"image0": reference, "image1": query})
        matches = found["matches"][0].cpu().numpy()
        scores = found["scores"][0].float().cpu().numpy()
        return by_score(matches[:, 0], matches[:, 1], scores)
