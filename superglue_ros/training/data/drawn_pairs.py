"""Training pairs drawn at every step instead of stored.

Homographies of photographs and rooms are new each time: an image pair is never seen twice (paper,
section 5.1). A sequence has a fixed number of pairs of frames. Views are drawn in main memory,
by worker processes if the run has any; SuperPoint detects their keypoints in the training
process (paper, section 4, "Training details").
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.geometry.ground_truth import LabelRule, MatchLabels
from superglue_ros.training.data.cache_builder import view_drawer
from superglue_ros.training.data.view_features import ViewFeatures, superpoint_features
from superglue_ros.training.data.views import ViewSet, label_views
from superglue_ros.training.recipes import ViewRecipe

_IMAGES_AT_ONCE = 8  # SuperPoint's first maps of 64 images of 640x480 would take 5 GB


@dataclass(frozen=True, eq=False)
class DrawnPairs:
    """Pairs of views, and the generator for the random choices about their keypoints."""

    sets: Sequence[ViewSet]
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class DescribedPair:
    """Features of both views of a pair, and their ground-truth matches."""

    views: tuple[ViewFeatures, ViewFeatures]
    labels: MatchLabels


class PairSource:
    """Draws ``pairs`` pairs of training views per step; they depend only on the generator."""

    def __init__(self, recipe: ViewRecipe, pairs: int) -> None:
        self._pairs = pairs
        self._make_drawer = view_drawer(recipe, "train")

    def draw(self, rng: np.random.Generator) -> DrawnPairs:
        """The pairs of one step, and ``rng`` in its state afterwards."""
        # A new drawer for every step: a resumed run has no state of earlier steps.
        draw = self._make_drawer()
        return DrawnPairs([draw(rng) for _ in range(self._pairs)], rng)


def describe(
    engine: SuperPointEngine, drawn: DrawnPairs, recipe: ViewRecipe
) -> list[DescribedPair]:
    """Features of ``drawn`` pairs by ``engine``, on its device, and their labels.

    Every view has up to ``recipe.keypoints``, or exactly as many with ``recipe.random_keypoints``.
    """
    images = [image for views in drawn.sets for image in views.images]
    filler = drawn.rng if recipe.random_keypoints else None
    found: list[ViewFeatures] = []
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        batch = images[start : start + _IMAGES_AT_ONCE]
        found += superpoint_features(engine, batch, recipe.keypoints, filler)
    points = [view.keypoints.double().cpu().numpy() for view in found]
    with ThreadPoolExecutor() as pool:  # NumPy works without the interpreter's lock
        sides = zip(points[0::2], points[1::2], strict=True)
        label = partial(_label, rule=recipe.labels)
        labels = pool.map(label, drawn.sets, sides)
        return [
            DescribedPair((first, second), truth)
            for first, second, truth in zip(found[0::2], found[1::2], labels, strict=True)
        ]


def _label(
    views: ViewSet, points: tuple[NDArray[np.floating], NDArray[np.floating]], rule: LabelRule
) -> MatchLabels:
    return label_views(views, 0, 1, points, rule)
