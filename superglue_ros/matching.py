"""Matchers: two sets of local features to a one-to-one partial assignment, behind one interface.

What can be computed of one set alone is computed once by ``prepare`` (a keyframe keeps the result);
``match`` then takes all references of a query in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from superglue_ros.backends import superglue_engine
from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import DescriptorKindError, FeaturesError
from superglue_ros.precision import MatchesSets, short_name
from superglue_ros.types import Correspondences, Features, FloatArray
from superglue_ros.weights import load_superglue


class Matcher(Protocol):
    """What every matcher can do; ``test/contract`` holds what that means.

    ``descriptor_kind``: the kind of descriptors it was made for, None = any, as long as both sets
    are of the same. ``precision``: the arithmetic in effect, as the setting of that name spells it.
    """

    descriptor_kind: str | None

    @property
    def precision(self) -> str:
        """Of the network, if there is one."""

    def prepare(self, features: Features) -> Any:
        """All of the work that needs one set only. Raises :class:`DescriptorKindError`."""
        ...

    def match(self, references: Sequence[Any], query: Any) -> list[Correspondences]:
        """Match one prepared query against prepared references, in one batch."""
        ...

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any]
    ) -> list[Correspondences]:
        """Match every prepared reference against the query beside it, in one batch."""
        ...

    def configure(self, config: MatcherConfig) -> None:
        """Take new settings, from the next match on; the fixed ones are as they were."""
        ...


def match_pair(matcher: Matcher, reference: Features, query: Features) -> Correspondences:
    """Match two sets of features."""
    return matcher.match([matcher.prepare(reference)], matcher.prepare(query))[0]


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
        matches.append(_by_score(np.flatnonzero(keep), indices[keep], scores[keep]))
    return matches


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
        """See :class:`Matcher`."""
        return short_name(self._engine.dtype)

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> Any:
        """See :class:`Matcher`; what the engine keeps of a set."""
        check_kind(features, self.descriptor_kind, self._descriptor_dim)
        return self._engine.prepare(
            _tensor(features.keypoints),
            _tensor(features.scores),
            _tensor(features.descriptors),
            (features.width, features.height),
        )

    def match(self, references: Sequence[Any], query: Any) -> list[Correspondences]:
        """See :class:`Matcher`."""
        return self.match_pairs(references, [query] * len(references))

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any]
    ) -> list[Correspondences]:
        """See :class:`Matcher`."""
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


class NearestNeighbourMatcher:
    """Nearest neighbours of descriptors, with the classical filters.

    ``nn``: the nearest in the query of every reference keypoint; where several share one, the
    closest keeps it. ``mutual``: nearest in both directions. ``ratio``: mutual, and nearer than
    ``ratio`` times the second nearest in both directions (Lowe, 2004). ``distance``: mutual, and
    nearer than ``max_distance``. The confidence is ``1 - d / 2``, clipped to [0, 1].
    """

    descriptor_kind: str | None = None
    precision = "float32"

    def __init__(self, config: MatcherConfig, device: torch.device) -> None:
        self._config = config
        self._device = device

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`Matcher`."""
        self._config = config

    def prepare(self, features: Features) -> tuple[str, Tensor]:
        """See :class:`Matcher`."""
        check_kind(features, None, None)
        return features.detector, _tensor(features.descriptors).to(self._device)

    def match(
        self, references: Sequence[tuple[str, Tensor]], query: tuple[str, Tensor]
    ) -> list[Correspondences]:
        """See :class:`Matcher`."""
        return self.match_pairs(references, [query] * len(references))

    @torch.inference_mode()
    def match_pairs(
        self, references: Sequence[tuple[str, Tensor]], queries: Sequence[tuple[str, Tensor]]
    ) -> list[Correspondences]:
        """See :class:`Matcher`."""
        return [
            self._match(reference, query)
            for reference, query in zip(references, queries, strict=True)
        ]

    def _match(self, reference: tuple[str, Tensor], query: tuple[str, Tensor]) -> Correspondences:
        kind0, descriptors0 = reference
        kind1, descriptors1 = query
        if kind0 != kind1 or descriptors0.shape[1] != descriptors1.shape[1]:
            raise DescriptorKindError(
                f"reference descriptors are {kind0} ({descriptors0.shape[1]}) but the query's are "
                f"{kind1} ({descriptors1.shape[1]}): use one front-end for both"
            )
        if not len(descriptors0) or not len(descriptors1):
            return Correspondences.empty()
        distances = torch.cdist(descriptors0, descriptors1)
        nearest, to_query = distances.min(dim=1)
        back, to_reference = distances.min(dim=0)
        rows = torch.arange(len(nearest), device=nearest.device)
        if self._config.name == "nn":
            keep = self._closest_claim(nearest, to_query, len(back))
        else:
            keep = to_reference[to_query] == rows
        if self._config.name == "ratio":
            keep &= self._passes_ratio(distances) & self._passes_ratio(distances.T)[to_query]
        elif self._config.name == "distance":
            keep &= nearest < self._config.max_distance
        scores = (1 - nearest / 2).clamp(0, 1)
        keep_np = keep.cpu().numpy()
        return _by_score(
            np.flatnonzero(keep_np), to_query.cpu().numpy()[keep_np], scores.cpu().numpy()[keep_np]
        )

    def _passes_ratio(self, distances: Tensor) -> Tensor:
        if distances.shape[1] < 2:
            return torch.ones(len(distances), dtype=torch.bool, device=distances.device)
        two = distances.topk(2, dim=1, largest=False).values
        return two[:, 0] < self._config.ratio * two[:, 1]

    @staticmethod
    def _closest_claim(nearest: Tensor, to_query: Tensor, size: int) -> Tensor:
        """For every query keypoint the one closest of the references that chose it."""
        order = nearest.argsort(descending=True, stable=True)
        owner = torch.full((size,), -1, dtype=torch.long, device=nearest.device)
        owner_np = owner.cpu().numpy()
        order_np, chosen = order.cpu().numpy(), to_query.cpu().numpy()
        owner_np[chosen[order_np]] = order_np  # the last write, the closest, stays
        rows = np.arange(len(chosen))
        return torch.from_numpy(owner_np[chosen] == rows).to(nearest.device)


def make_matcher(config: Config, device: torch.device) -> Matcher:
    """The matcher that ``config.matcher`` names."""
    if config.matcher.name == "superglue":
        loaded = load_superglue(config.matcher.weights)
        engine = superglue_engine(loaded, config, device)
        dim = loaded.network.config.descriptor_dim
        return SuperGlueMatcher(engine, loaded.descriptor_kind, dim, config.matcher)
    return NearestNeighbourMatcher(config.matcher, device)


def check_kind(features: Features, kind: str | None, dim: int | None) -> None:
    """Refuse features without descriptors, or of another kind or size than ``kind`` and ``dim``."""
    if features.descriptors is None:
        raise FeaturesError("features have no descriptors: describe the keypoints first")
    if kind is not None and features.detector != kind:
        raise DescriptorKindError(
            f"descriptors are {features.detector!r} but the matcher was made for {kind!r}: "
            f"use that front-end, or matcher weights made for these descriptors"
        )
    if dim is not None and features.descriptor_dim != dim:
        raise DescriptorKindError(
            f"descriptors have {features.descriptor_dim} values but the matcher takes {dim}: "
            f"use matcher weights made for these descriptors"
        )


def _tensor(values: FloatArray | None) -> Tensor:
    """A tensor on the array's memory; torch refuses read-only arrays, which are copied."""
    return torch.from_numpy(np.require(values, np.float32, "W"))


def _by_score(index_ref: Any, index_query: Any, scores: Any) -> Correspondences:
    """Correspondences by falling confidence; ties keep the order of the reference."""
    order = np.argsort(-scores, kind="stable")
    return Correspondences(
        np.asarray(index_ref[order], np.int32),
        np.asarray(index_query[order], np.int32),
        np.asarray(scores[order], np.float32),
    )
