"""Fits the coefficients of superglue_ros/matchers/local_motion.py and prints them.

    scripts/run python scripts/fit_local_motion.py CORPUS WALK

CORPUS is that of ``train corpus``, with photographs and worlds; WALK a sequence with depth, of
which the first 180 frames are used: hololens_walk, whose last ones are for evaluation.
Neighbouring views of every set, the package's own weights, small and wide, 1024 keypoints. A match
is right under the pixels that the views' ground truth is good for; it is wrong where its point is
hidden, or off by twice as many (with noisy depth, by as many as make an unmatched keypoint); what
lies between is left out. The three kinds of views count the same. Ten to twenty minutes of a core.
"""

from __future__ import annotations

import argparse
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
from superglue_ros.matchers.local_motion import (
    Candidates,
    LocalMotionMatcher,
    evidence,
    own_evidence,
)
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
    """Photographs, worlds and a sequence."""
    frames = SequenceSource(walk, last=180, gap=(3, 9))
    return [
        Source(ViewRecipe("homography", corpus, views=2, photograph_share=1.0), 40, 4),
        Source(ViewRecipe("worlds", corpus, views=3), 25, 7),
        Source(
            ViewRecipe(
                "sequences", sequences=(frames,), views=2, width=536, height=360, overlap=(0.2, 1.0)
            ),
            40,
            1,
        ),
    ]


def main() -> None:
    """Print ``CREDIBLE`` and ``RIGHT``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="folder of train corpus")
    parser.add_argument("walk", help="sequence with depth and poses")
    args = parser.parse_args()
    torch.set_num_threads(1)
    credible, right = fitted([drawn(source) for source in sources(args.corpus, args.walk)])
    print("CREDIBLE", np.round(credible, 3).tolist())
    print("RIGHT", np.round(right, 3).tolist())


def fitted(kinds: list[list[Pair]]) -> tuple[Floats, Floats]:
    """``CREDIBLE`` and ``RIGHT`` by the pairs of several kinds of views."""
    pairs = [pair for kind in kinds for pair in kind]
    right = np.concatenate([labels for _, labels in pairs])
    counts = [sum(int(np.isfinite(labels).sum()) for _, labels in kind) for kind in kinds]
    weights = np.concatenate(
        [
            np.full(len(labels), 1 / count)
            for kind, count in zip(kinds, counts, strict=True)
            for _, labels in kind
        ]
    )
    print(f"{len(pairs)} pairs, {counts} candidates, {np.nanmean(right):.3f} of them right")
    credible = _regression(np.concatenate([own_evidence(c) for c, _ in pairs]), right, weights)
    everything = np.concatenate([evidence(candidates, credible) for candidates, _ in pairs])
    return credible, _regression(everything, right, weights)


def drawn(source: Source) -> list[Pair]:
    """Candidates of neighbouring views by both networks, and which are right."""
    draw = view_drawer(source.recipe, "train")()
    front_end = make_front_end(CONFIG, CPU)
    matchers = [
        make_matcher(replace(CONFIG, matcher=MatcherConfig(weights=w, local_motion=True)), CPU)
        for w in ("small", "wide")
    ]
    out = []
    for index in range(source.sets):
        views = draw(np.random.default_rng([source.seed, index]))
        features = [front_end.extract(np.ascontiguousarray(image)) for image in views.images]
        for i, j in pairwise(range(len(features))):
            for matcher in matchers:
                assert isinstance(matcher, LocalMotionMatcher)
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


def _regression(terms: Floats, right: Floats, weights: Floats) -> Floats:
    """Logistic regression of ``right`` (K,), NaN = left out, on terms (K, T): (T + 1,)."""
    known = np.isfinite(right)
    x = np.column_stack([terms, np.ones(len(terms))])[known]
    y, w = right[known], weights[known] / weights[known].sum()

    def loss(b: Floats) -> tuple[float, Floats]:
        z = x @ b
        return float(w @ (np.logaddexp(0, z) - y * z)), np.asarray(x.T @ (w * (expit(z) - y)))

    return np.asarray(minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS").x)


if __name__ == "__main__":
    main()
