"""Nearest neighbours whose matches a learned filter judges: PointCN and OANet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.matchers.base import as_tensor, by_score
from superglue_ros.matchers.nearest import NearestNeighbourMatcher
from superglue_ros.networks.match_filter import MatchFilter, normalised_matches
from superglue_ros.networks.weights import load_match_filter
from superglue_ros.types import Correspondences, Features


def make(config: Config, device: torch.device) -> FilteredMatcher:
    """With the filter that ``config.matcher`` names. Raises :class:`WeightsError`."""
    loaded = load_match_filter(config.matcher.name, config.matcher.weights)
    return FilteredMatcher(loaded.network.to(device), config.matcher, device)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What the nearest neighbour keeps of a set, its pixels (N, 2), and the image's size (2,)."""

    nearest: Any
    points: Tensor
    size: Tensor


class FilteredMatcher:
    """The nearest neighbour in the query of every reference keypoint, one-to-one, then the filter.

    Kept are matches that the filter gives a probability of more than ``filter_threshold``, which is
    their confidence. It reads coordinates only, so descriptors may be of any kind.
    """

    descriptor_kind: str | None = None
    precision = "float32"

    def __init__(self, network: MatchFilter, config: MatcherConfig, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._config = config
        self._nearest = NearestNeighbourMatcher(replace(config, name="nn"), device)

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> _Prepared:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        return _Prepared(
            self._nearest.prepare(features),
            as_tensor(features.keypoints).to(self._device),
            torch.tensor([features.width, features.height], device=self._device),
        )

    @torch.inference_mode()
    def match_pairs(
        self, references: Sequence[_Prepared], queries: Sequence[_Prepared]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        found = self._nearest.match_pairs(
            [one.nearest for one in references], [one.nearest for one in queries]
        )
        return [self._filtered(*pair) for pair in zip(found, references, queries, strict=True)]

    def _filtered(
        self, found: Correspondences, reference: _Prepared, query: _Prepared
    ) -> Correspondences:
        if not len(found):
            return found
        matches = normalised_matches(
            reference.points[found.index_ref],
            query.points[found.index_query],
            reference.size,
            query.size,
        )
        scores = self._network(matches[None])[0, -1].sigmoid().cpu().numpy()
        keep = scores > self._config.filter_threshold
        return by_score(found.index_ref[keep], found.index_query[keep], scores[keep])
