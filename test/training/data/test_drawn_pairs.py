"""Pairs drawn at every step: none twice, the same for the same seed, step and process."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.training.data.drawn_pairs import DrawnPairs, PairSource, describe
from superglue_ros.training.recipes import ViewRecipe

TINY = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)


def recipe(corpus: Path, source: str = "homography") -> ViewRecipe:
    return ViewRecipe(source=source, corpus=str(corpus), width=160, height=120, keypoints=200)


def draw(source: PairSource, seed: int, step: int, process: int) -> DrawnPairs:
    return source.draw(np.random.default_rng([seed, step, process]))


def digests(drawn: DrawnPairs) -> list[str]:
    return [
        hashlib.sha256(b"".join(image.tobytes() for image in views.images)).hexdigest()
        for views in drawn.sets
    ]


@pytest.mark.parametrize(("kind", "steps"), [("homography", 12), ("rooms", 2)])
def test_no_pair_is_drawn_twice(corpus, kind, steps):
    source = PairSource(recipe(corpus, kind), 4)
    drawn = [
        digest
        for step in range(steps)
        for process in range(2)
        for digest in digests(draw(source, 0, step, process))
    ]
    assert len(drawn) == 8 * steps
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("kind", ["homography", "rooms"])
def test_a_step_is_the_same_whatever_was_drawn_before(corpus, kind):
    source = PairSource(recipe(corpus, kind), 2)
    for step in range(2):
        draw(source, 3, step, 0)
    fresh = PairSource(recipe(corpus, kind), 2)
    assert digests(draw(source, 3, 2, 0)) == digests(draw(fresh, 3, 2, 0))
    assert digests(draw(fresh, 4, 2, 0)) != digests(draw(fresh, 3, 2, 0))


def test_pairs_are_described_in_order_with_labels_of_their_own(corpus):
    """Portions of 8 images change nothing, and a match is under 3 px in its own pair."""
    torch.manual_seed(0)
    engine = SuperPointEngine(SuperPoint(TINY).eval(), torch.device("cpu"))
    source = PairSource(recipe(corpus), 5)
    pairs = describe(engine, draw(source, 0, 0, 0), recipe(corpus))
    views = draw(source, 0, 0, 0).sets
    assert len(pairs) == 5
    matched = 0
    for pair, view_set in zip(pairs, views, strict=True):
        first, second = (view.keypoints.double().numpy() for view in pair.views)
        assert first.shape == second.shape == (200, 2)
        there, back = view_set.project(first, 0, 1).points, view_set.project(second, 1, 0).points
        for i in np.flatnonzero(pair.labels.matches0 >= 0):
            partner = pair.labels.matches0[i]
            assert pair.labels.matches1[partner] == i
            errors = there[i] - second[partner], back[partner] - first[i]
            assert np.linalg.norm(errors, axis=1).min() < 3
            matched += 1
    assert matched > 50
