"""Nearest neighbours of descriptors, with the classical filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.matchers.base import as_tensor, by_score, check_kind, check_same_kind
from superglue_ros.types import Correspondences, Features


def make(config: Config, device: torch.device) -> NearestNeighbourMatcher:
    """The filter that ``config.matcher.name`` names."""
    return NearestNeighbourMatcher(config.matcher, device)


class NearestNeighbourMatcher:
    """Nearest neighbours of descriptors, with the classical filters.

    ``nn``: the nearest in the query of every reference keypoint; where several share one, the
    closest keeps it. ``mutual``: nearest in both directions. ``ratio``: mutual, and nearer than
    ``ratio`` times the second nearest in both directions (Lowe, 2004). ``distance``: mutual, and
    nearer than ``max_distance``. The confidence is ``1 - d / 2``, clipped to [0, 1].

    ``paper-nn`` and ``paper-ratio`` are the baselines of the paper's tables: from the reference to
    the query only, so that several reference keypoints may share a query keypoint.
    """

    descriptor_kind: str | None = None
    precision = "float32"

    def __init__(self, config: MatcherConfig, device: torch.device) -> None:
        self._config = config
        self._device = device

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> tuple[str, Tensor]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        check_kind(features, None, None)
        return features.detector, as_tensor(features.descriptors).to(self._device)

    @torch.inference_mode()
    def match_pairs(
        self, references: Sequence[tuple[str, Tensor]], queries: Sequence[tuple[str, Tensor]]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        return [
            self._match(reference, query)
            for reference, query in zip(references, queries, strict=True)
        ]

    def _match(self, reference: tuple[str, Tensor], query: tuple[str, Tensor]) -> Correspondences:
        kind0, descriptors0 = reference
        kind1, descriptors1 = query
        check_same_kind((kind0, descriptors0.shape[1]), (kind1, descriptors1.shape[1]))
        if not len(descriptors0) or not len(descriptors1):
            return Correspondences.empty()
        distances = torch.cdist(descriptors0, descriptors1)
        nearest, to_query = distances.min(dim=1)
        back, to_reference = distances.min(dim=0)
        rows = torch.arange(len(nearest), device=nearest.device)
        name = self._config.name
        if name == "paper-nn":
            keep = torch.ones_like(rows, dtype=torch.bool)
        elif name == "paper-ratio":
            keep = self._passes_ratio(distances)
        elif name == "nn":
            keep = _closest_claim(nearest, to_query, len(back))
        else:
            keep = to_reference[to_query] == rows
        if name == "ratio":
            keep &= self._passes_ratio(distances) & self._passes_ratio(distances.T)[to_query]
        elif name == "distance":
            keep &= nearest < self._config.max_distance
        scores = (1 - nearest / 2).clamp(0, 1)
        keep_np = keep.cpu().numpy()
        return by_score(
            np.flatnonzero(keep_np), to_query.cpu().numpy()[keep_np], scores.cpu().numpy()[keep_np]
        )

    def _passes_ratio(self, distances: Tensor) -> Tensor:
        if distances.shape[1] < 2:
            return torch.ones(len(distances), dtype=torch.bool, device=distances.device)
        two = distances.topk(2, dim=1, largest=False).values
        return two[:, 0] < self._config.ratio * two[:, 1]


def nearest_claims(descriptors0: Tensor, descriptors1: Tensor) -> tuple[Tensor, Tensor]:
    """Matches of ``nn``: indices (K,), (K,) of descriptors (M, D), (N, D), neither set empty."""
    nearest, to_query = torch.cdist(descriptors0, descriptors1).min(dim=1)
    rows = _closest_claim(nearest, to_query, len(descriptors1)).nonzero()[:, 0]
    return rows, to_query[rows]


def _closest_claim(nearest: Tensor, to_query: Tensor, size: int) -> Tensor:
    """For every query keypoint the one closest of the references that chose it."""
    order = nearest.argsort(descending=True, stable=True)
    owner = torch.full((size,), -1, dtype=torch.long, device=nearest.device)
    owner_np = owner.cpu().numpy()
    order_np, chosen = order.cpu().numpy(), to_query.cpu().numpy()
    owner_np[chosen[order_np]] = order_np  # the last write, the closest, stays
    rows = np.arange(len(chosen))
    return torch.from_numpy(owner_np[chosen] == rows).to(nearest.device)
