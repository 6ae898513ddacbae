"""In-plane rotation: an image that matches badly is tried in three quarter turns.

Learned descriptors bear some 60 degrees. Turned by the nearest quarter, no two images are further
apart than 45. The keypoints stay those of the upright image: only their descriptors and places are
taken from the turned one, so matches index the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from superglue_ros.data.image import Resized
from superglue_ros.frontends.base import FrontEnd, GreyImage
from superglue_ros.matchers.base import Matcher
from superglue_ros.types import Correspondences, Features, FloatArray

TURNS = (1, 2, 3)
FEW = 0.1
"""Turns are tried where fewer than this part of the keypoints match."""
GAIN = 2.0
"""And taken where they bring this many times as many matches."""


def turned(image: GreyImage, turns: int) -> GreyImage:
    """The image (H, W), turned anticlockwise by ``turns`` quarters."""
    return np.ascontiguousarray(np.rot90(image, turns))


def turned_points(points: FloatArray, shape: tuple[int, ...], turns: int) -> FloatArray:
    """Pixels (N, 2) of an image of ``shape`` (H, W) in that image turned by ``turns`` quarters."""
    height, width = shape
    for _ in range(turns % 4):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
        height, width = width, height
    return points


def turned_encodings(
    features: Features, image: Resized, front_end: FrontEnd, matcher: Matcher
) -> list[Any]:
    """The matcher's encoding of ``features``, described in each of the turned images."""
    encodings = []
    pixels = image.to_resized(features.keypoints)
    for turns in TURNS:
        points = turned_points(pixels, image.image.shape, turns)
        described = front_end.describe(turned(image.image, turns), points)
        encodings.append(matcher.prepare(replace(described, scores=features.scores)))
    return encodings


def is_poor(found: Correspondences, keypoints: int, threshold: float = 0.0) -> bool:
    """Whether so few of the ``keypoints`` match that turns are worth trying."""
    return _count(found, threshold) < FEW * keypoints


def best_turn(
    upright: Correspondences,
    reference: Any,
    encodings: Sequence[Any],
    matcher: Matcher,
    threshold: float = 0.0,
) -> Correspondences:
    """The matches of the best turn, or ``upright`` where none is clearly better.

    ``reference`` is the matcher's encoding, ``encodings`` those of :func:`turned_encodings`;
    matches count from a confidence of ``threshold`` on.
    """
    found = matcher.match_pairs([reference] * len(TURNS), encodings)
    turns, best = max(
        zip(TURNS, found, strict=True), key=lambda attempt: _count(attempt[1], threshold)
    )
    if _count(best, threshold) < GAIN * max(_count(upright, threshold), 1):
        return upright
    return replace(best, turns=turns)


def _count(found: Correspondences, threshold: float) -> int:
    return int((found.scores > threshold).sum())
