"""SuperGlue as a matcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.engines.backends import superglue_engine
from superglue_ros.engines.precision import MatchesSets, short_name
from superglue_ros.matchers.base import as_tensor, by_score, check_kind
from superglue_ros.networks.weights import load_superglue
from superglue_ros.types import Correspondences, Features


def make(config: Config, device: torch.device) -> SuperGlueMatcher:
    """With the weights and the engine that ``config`` names."""
    loaded = load_superglue(config.matcher.weights, device)
    engine = superglue_engine(loaded, config, device)
    dim = loaded.network.config.descriptor_dim
    return SuperGlueMatcher(engine, loaded.descriptor_kind, dim, config.matcher)


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
        return short_name(self._engine.dtype)

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> Any:
        """See :class:`~superglue_ros.matchers.base.Matcher`; the engine's encoding of a set."""
        check_kind(features, self.descriptor_kind, self._descriptor_dim)
        return self._engine.prepare(
            as_tensor(features.keypoints),
            as_tensor(features.scores),
            as_tensor(features.descriptors),
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
        assignments = self._engine.match_pairs(
            [references[i] for i in filled],
            [queries[i] for i in filled],
            self._config.sinkhorn_iterations,
        )
        for k, assignment in assignments:
            matches[filled[k]] = mutual_assignment(assignment, self._config.threshold)[0]
        return matches


def mutual_assignment(log_assignment: Tensor, threshold: float) -> list[Correspondences]:
    """Matches of a batch of soft assignments (section 4): mutual best, probability > threshold.

    ``log_assignment`` (P, M+1, N+1), dustbins last, -inf where there is padding.
    """
    inner = log_assignment[:, :-1, :-1]
    if inner.shape[1] == 0 or inner.shape[2] == 0:
        return [Correspondences.empty() for _ in range(len(inner))]
    best, to_query = inner.max(dim=2)
    to_reference = inner.argmax(dim=1)
    rows = torch.arange(inner.shape[1], device=inner.device)
    probability = best.exp()
    valid = (to_reference.gather(1, to_query) == rows) & (probability > threshold)
    valid_np, to_query_np, probability_np = (
        valid.cpu().numpy(),
        to_query.cpu().numpy(),
        probability.float().cpu().numpy(),
    )
    matches = []
    for keep, indices, scores in zip(valid_np, to_query_np, probability_np, strict=True):
        matches.append(by_score(np.flatnonzero(keep), indices[keep], scores[keep]))
    return matches
