"""SuperGlue as a matcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.engines.backends import superglue_engine
from superglue_ros.engines.mutual import Partners, mutual_best
from superglue_ros.engines.precision import MatchesSets, short_name
from superglue_ros.engines.resident import take
from superglue_ros.matchers.base import as_tensor, by_score, check_kind
from superglue_ros.matchers.verification import VerifiedMatcher
from superglue_ros.networks.weights import load_superglue
from superglue_ros.types import Correspondences, Features


def make(config: Config, device: torch.device) -> SuperGlueMatcher | VerifiedMatcher:
    """With the weights and the engine that ``config`` names."""
    loaded = load_superglue(config.matcher.weights, device)
    engine = superglue_engine(loaded, config, device)
    dim = loaded.network.config.descriptor_dim
    network = SuperGlueMatcher(engine, loaded.descriptor_kind, dim, config.matcher)
    if not config.matcher.verification:
        return network
    return VerifiedMatcher(network, config.matcher, device)


class SuperGlueMatcher:
    """SuperGlue with confidence threshold (section 4)."""

    def __init__(
        self,
        engine: MatchesSets,
        descriptor_kind: str | None,
        descriptor_dim: int,
        config: MatcherConfig,
    ) -> None:
        self.descriptor_kind = descriptor_kind
        self._descriptor_dim = descriptor_dim
        self._engine = engine
        self._config = config

    @property
    def precision(self) -> str:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        return short_name(self._engine)

    @property
    def graphed(self) -> bool:
        """Whether matching runs as CUDA graphs."""
        return getattr(self._engine, "graphed", False)

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> Any:
        """See :class:`~superglue_ros.matchers.base.Matcher`; the engine's encoding of a set."""
        check_kind(features, self.descriptor_kind, self._descriptor_dim)
        descriptors = None if features.descriptors is None else take(features.descriptors)
        if descriptors is None:
            descriptors = as_tensor(features.descriptors)
        return self._engine.prepare(
            as_tensor(features.keypoints),
            as_tensor(features.scores),
            descriptors,
            (features.width, features.height),
        )

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        matches = [Correspondences.empty() for _ in references]
        # An empty set has nothing to attend to: its pairs have no matches and skip the network.
        filled = [
            i
            for i, (reference, query) in enumerate(zip(references, queries, strict=True))
            if len(reference) and len(query)
        ]
        found = self._engine.partners(
            [references[i] for i in filled],
            [queries[i] for i in filled],
            self._config.sinkhorn_iterations,
        )
        for k, partners in found:
            matches[filled[k]] = _certain(partners, self._config.threshold)
        return matches


def mutual_assignment(log_assignment: Tensor, threshold: float) -> list[Correspondences]:
    """Matches of a batch of soft assignments (section 4): mutual best, probability > threshold.

    ``log_assignment`` (P, M+1, N+1), dustbins last, -inf where there is padding.
    """
    index, probability = (values.cpu().numpy() for values in mutual_best(log_assignment))
    return [_certain(partners, threshold) for partners in zip(index, probability, strict=True)]


def _certain(partners: Partners, threshold: float) -> Correspondences:
    """The matches whose probability exceeds ``threshold``."""
    index, probability = partners
    keep = np.flatnonzero((index >= 0) & (probability > threshold))
    return by_score(keep, index[keep], probability[keep])
