"""Fits the coefficients of superglue_ros/matchers/verification.py and prints them.

    scripts/run python scripts/fit_verification.py CORPUS WALK

CORPUS is that of ``train corpus``, with photographs and worlds; WALK a sequence with depth, of
which the first 180 frames are used: hololens_walk, whose last ones are for evaluation.
Neighbouring views of every set, the package's own weights, small and wide, 1024 keypoints. A match
is right under the pixels that the views' ground truth is good for; it is wrong where its point is
hidden, or off by twice as many (with noisy depth, by as many as make an unmatched keypoint); what
lies between is left out. The kinds of views count the same. Ten to twenty minutes of a core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.frontends.base import make_front_end
from superglue_ros.matchers.base import make_matcher
from superglue_ros.matchers.verification import (
    Candidates,
    Coefficients,
    VerifiedMatcher,
    global_evidence,
    local_evidence,
    own_evidence,
)
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.training.data.cache_builder import view_drawer
from superglue_ros.training.data.views import ViewSet
from superglue_ros.training.recipes import SequenceSource, ViewRecipe
from superglue_ros.types import Features

Floats = NDArray[np.float64]
Pair = tuple[Candidates, Floats]
CPU = torch.device("cpu")
CONFIG = Config(precision="float32")


@dataclass(frozen=True)
class Source:
    """View sets of one kind."""

    recipe: ViewRecipe
    sets: int
    seed: int


def sources(corpus: str, walk: str) -> list[Source]:
    """Photographs and worlds, both also from further apart, and a sequence."""
    frames = SequenceSource(walk, last=180, gap=(3, 9))
    photographs = ViewRecipe("homography", corpus, views=2, photograph_share=1.0)
    tilted = HomographyRecipe(
        perspective=0.32, rotation_deg=20.0, scale=(0.5, 1.6), min_overlap=0.25, min_crop=0.4
    )
    worlds = ViewRecipe("worlds", corpus, views=3)
    apart = replace(worlds.worlds, max_baseline=1.3, min_overlap=0.12)
    return [
        Source(photographs, 40, 4),
        Source(replace(photographs, homography=tilted), 40, 14),
        Source(worlds, 25, 7),
        Source(replace(worlds, worlds=apart), 25, 17),
        Source(
            ViewRecipe(
                "sequences", sequences=(frames,), views=2, width=536, height=360, overlap=(0.2, 1.0)
            ),
            40,
            1,
        ),
    ]


def main() -> None:
    """Print the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="folder of train corpus")
    parser.add_argument("walk", help="sequence with depth and poses")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = fitted([drawn(source) for source in sources(args.corpus, args.walk)])
    for name, values in vars(found).items():
        print(f"{name}=np.array({np.round(values, 3).tolist()}),")


def fitted(kinds: list[list[Pair]]) -> Coefficients:
    """The coefficients by the pairs of several kinds of views."""
    pairs = [pair for kind in kinds for pair in kind]
    counts = [sum(int(np.isfinite(labels).sum()) for _, labels in kind) for kind in kinds]
    weights = [
        np.full(len(labels), 1 / count)
        for kind, count in zip(kinds, counts, strict=True)
        for _, labels in kind
    ]
    right = [labels for _, labels in pairs]
    share = np.nanmean(np.concatenate(right))
    print(f"{len(pairs)} pairs, {counts} candidates, {share:.3f} of them right")
    own = _regression([own_evidence(candidates) for candidates, _ in pairs], right, weights)
    evidence = [local_evidence(candidates, own) for candidates, _ in pairs]
    local = _regression(evidence, right, weights)
    everything = [
        global_evidence(candidates, given, local)
        for (candidates, _), given in zip(pairs, evidence, strict=True)
    ]
    return Coefficients(own, local, _regression(everything, right, weights))


def drawn(source: Source) -> list[Pair]:
    """Candidates of neighbouring views by both networks, and which are right."""
    draw = view_drawer(source.recipe, "train")()
    front_end = make_front_end(CONFIG, CPU)
    matchers = [
        make_matcher(replace(CONFIG, matcher=MatcherConfig(weights=w, verification=True)), CPU)
        for w in ("small", "wide")
    ]
    out = []
    for index in range(source.sets):
        views = draw(np.random.default_rng([source.seed, index]))
        features = [front_end.extract(np.ascontiguousarray(image)) for image in views.images]
        for i, j in pairwise(range(len(features))):
            for matcher in matchers:
                assert isinstance(matcher, VerifiedMatcher)
                prepared = [matcher.prepare(features[view]) for view in (i, j)]
                (found,) = matcher.candidates(prepared[:1], prepared[1:])
                out.append((found, _judged(views, i, j, (features[i], features[j]), found)))
    return out


def _judged(
    views: ViewSet, i: int, j: int, features: tuple[Features, Features], candidates: Candidates
) -> Floats:
    """Right 1, wrong 0, unknown NaN (K,)."""
    first, second = (one.keypoints.astype(np.float64) for one in features)
    there = views.project(first[candidates.index_ref], i, j)
    off = np.linalg.norm(there.points - second[candidates.index_query], axis=1)
    limit = views.thresholds.match
    wrong = there.hidden | (off >= (views.thresholds.unmatched or 2 * limit))
    known = ~there.unknown & (wrong | (off < limit))
    return np.where(known, ~wrong, np.nan)


def _regression(
    terms: Sequence[Floats | None], right: Sequence[Floats], weights: Sequence[Floats]
) -> Floats:
    """Logistic regression of ``right`` (K,), NaN = left out, on terms (K, T): (T + 1,).

    One of each for a pair of views; a pair without terms is left out.
    """
    rows = [
        (np.column_stack([given, np.ones(len(given))]), labels, weight)
        for given, labels, weight in zip(terms, right, weights, strict=True)
        if given is not None
    ]
    x, y, w = (np.concatenate(column) for column in zip(*rows, strict=True))
    known = np.isfinite(y)
    x, y, w = x[known], y[known], w[known] / w[known].sum()

    def loss(b: Floats) -> tuple[float, Floats]:
        z = x @ b
        return float(w @ (np.logaddexp(0, z) - y * z)), np.asarray(x.T @ (w * (expit(z) - y)))

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS")
    print(f"{len(rows)} pairs, loss {found.fun:.4f}")
    return np.asarray(found.x)


if __name__ == "__main__":
    main()
