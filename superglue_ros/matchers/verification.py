"""A network's matches verified by how the image moves, and completed by descriptors.

The assignment probability of SuperGlue is too low for many a right match where training saw few
such views. What moves with its neighbours, and as the whole image does, is likely right whatever
its probability, and what does not is likely wrong. Candidates are all matches of the network, and
mutual nearest neighbours of the descriptors that it did not make. The confidence of a match is the
probability that it is right, by logistic regression on ever more evidence: the network's
probability, then how the candidates around it move, then the motion of all that is likely by now.
``scripts/fit_verification.py`` gives the coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from superglue_ros.config import MatcherConfig
from superglue_ros.geometry.global_motion import global_motion
from superglue_ros.geometry.local_motion import local_motion
from superglue_ros.matchers.base import Matcher, by_score
from superglue_ros.matchers.nearest import NearestNeighbourMatcher
from superglue_ros.types import Correspondences, Features, FloatArray, IntArray

Floats = NDArray[np.float64]

_SIDE_PX = 640.0  # images are scaled to it, for the pixels of geometry
_LEAST, _MOST = 1e-5, 1 - 1e-3  # of a probability, so that its log odds tell something
_LIKELY = 0.05  # the probability from which on a candidate has a say in the global motion


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Of the log odds that a candidate is right, each with the constant last.

    ``own`` (3,): of :func:`own_evidence`; ``local`` (5,): of :func:`local_evidence`; ``overall``
    (8,): of :func:`global_evidence`.
    """

    own: Floats
    local: Floats
    overall: Floats


FITTED = Coefficients(
    own=np.array([1.064, -4.128, 1.558]),
    local=np.array([0.412, -1.937, 2.19, -0.748, -2.04]),
    overall=np.array([0.388, -1.198, 1.328, -0.468, 7.435, 14.812, -4.477, -8.033]),
)


@dataclass(frozen=True, eq=False)
class Candidates:
    """K pairs of keypoints that may match; several may share a keypoint.

    ``index_ref``, ``index_query`` (K,); ``points_ref``, ``points_query`` (K, 2) pixels of images
    whose longer side is 640; ``probability`` (K,) is the network's, NaN where only the descriptors
    match.
    """

    index_ref: IntArray
    index_query: IntArray
    points_ref: Floats
    points_query: Floats
    probability: Floats


def own_evidence(candidates: Candidates) -> Floats:
    """(K, 2): log odds of the network's probability, 0 where there is none, and whether that is."""
    unknown = np.isnan(candidates.probability)
    probability = np.where(unknown, 0.5, candidates.probability)
    return np.stack([logit(probability.clip(_LEAST, _MOST)), unknown], axis=1)


def local_evidence(candidates: Candidates, own: Floats) -> Floats:
    """(K, 4): :func:`own_evidence`, the logarithm of the neighbours' support, and the misfit.

    The logarithm, since the first neighbours that go along tell more than the next ones. ``own``:
    coefficients by which neighbours are credible.
    """
    evidence = own_evidence(candidates)
    credible = expit(log_odds(evidence, own))
    motion = local_motion(candidates.points_ref, candidates.points_query, credible)
    return np.column_stack([evidence, np.log1p(motion.support), motion.misfit])


def global_evidence(candidates: Candidates, evidence: Floats, local: Floats) -> Floats | None:
    """(K, 7): :func:`local_evidence`, and what the motion of what is likely by it says.

    That is the agreement with its epipolar geometry, that with its plane as far as the scene is
    flat, and how flat it is. None where the likely ones follow no motion. ``local``: coefficients.
    """
    likely = _best(candidates, log_odds(evidence, local), _LIKELY)
    motion = global_motion(candidates.points_ref, candidates.points_query, likely)
    if motion is None:
        return None
    flatness = np.full(len(evidence), motion.flatness)
    return np.column_stack([evidence, motion.epipolar, motion.planar * flatness, flatness])


def log_odds(evidence: Floats, coefficients: Floats) -> Floats:
    """(K,) of evidence (K, T) and coefficients (T + 1,)."""
    return np.asarray(evidence @ coefficients[:-1] + coefficients[-1])


def verified(candidates: Candidates) -> Floats:
    """The log odds (K,) that each is right, by all that there is to say."""
    evidence = local_evidence(candidates, FITTED.own)
    everything = global_evidence(candidates, evidence, FITTED.local)
    if everything is None:
        return log_odds(evidence, FITTED.local)
    return log_odds(everything, FITTED.overall)


def _best(candidates: Candidates, odds: Floats, threshold: float) -> NDArray[np.intp]:
    """Which are the best of both of their keypoints and above the threshold, the best first."""
    best_first = np.argsort(-odds, kind="stable")
    best = np.zeros((2, len(odds)), bool)
    for side, index in enumerate((candidates.index_ref, candidates.index_query)):
        _, first = np.unique(index[best_first], return_index=True)
        best[side, best_first[first]] = True
    keep = best.all(axis=0) & (expit(odds) > threshold)
    return best_first[keep[best_first]]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What the network and the nearest neighbour keep of a set, and its pixels (N, 2), scaled."""

    own: Any
    nearest: Any
    points: Floats


class VerifiedMatcher:
    """The candidates of a network, one-to-one, that are likely right (see the module).

    Kept are those with a confidence of more than ``matcher.threshold``. ``network``: a matcher
    that has a confidence.
    """

    def __init__(self, network: Matcher, config: MatcherConfig, device: torch.device) -> None:
        self.descriptor_kind = network.descriptor_kind
        self._network = network
        self._nearest = NearestNeighbourMatcher(replace(config, name="mutual"), device)
        self.configure(config)

    @property
    def precision(self) -> str:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        return self._network.precision

    @property
    def graphed(self) -> bool:
        """Whether the network runs as CUDA graphs."""
        return getattr(self._network, "graphed", False)

    def configure(self, config: MatcherConfig) -> None:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        self._threshold = config.threshold
        self._network.configure(replace(config, threshold=0.0))

    def prepare(self, features: Features) -> _Prepared:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        scale = _SIDE_PX / max(features.width, features.height)
        own = self._network.prepare(features)  # first: it takes what is still on the device
        points = np.asarray(features.keypoints, np.float64) * scale
        return _Prepared(own, self._nearest.prepare(features), points)

    def match_pairs(
        self, references: Sequence[_Prepared], queries: Sequence[_Prepared]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matchers.base.Matcher`."""
        everything = self.candidates(references, queries)
        return [_likely(candidates, self._threshold) for candidates in everything]

    def candidates(
        self, references: Sequence[_Prepared], queries: Sequence[_Prepared]
    ) -> list[Candidates]:
        """The candidates of every pair."""
        own = self._network.match_pairs([r.own for r in references], [q.own for q in queries])
        nearest = self._nearest.match_pairs(
            [r.nearest for r in references], [q.nearest for q in queries]
        )
        return [_joined(*pair) for pair in zip(references, queries, own, nearest, strict=True)]


def _joined(
    reference: _Prepared, query: _Prepared, own: Correspondences, nearest: Correspondences
) -> Candidates:
    """The network's matches and the nearest neighbours that are none of these."""
    partner = np.full(len(reference.points), -1)
    partner[own.index_ref] = own.index_query
    more = partner[nearest.index_ref] != nearest.index_query
    index_ref = np.concatenate([own.index_ref, nearest.index_ref[more]])
    index_query = np.concatenate([own.index_query, nearest.index_query[more]])
    return Candidates(
        index_ref=index_ref,
        index_query=index_query,
        points_ref=reference.points[index_ref],
        points_query=query.points[index_query],
        probability=np.concatenate([own.scores, np.full(more.sum(), np.nan)]).astype(np.float64),
    )


def _likely(candidates: Candidates, threshold: float) -> Correspondences:
    """Candidates that are the best of both of their keypoints, above the threshold."""
    odds = verified(candidates)
    keep = _best(candidates, odds, threshold)
    scores: FloatArray = expit(odds[keep]).astype(np.float32)
    return by_score(candidates.index_ref[keep], candidates.index_query[keep], scores)
