"""What a network in another precision does to the task: matches whose truth is known.

Views of scikit-image's photographs under known homographies. What users feel is compared: how many
matches both have, how many are right, and how far the homography that they give is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superglue_ros.engines.mutual import mutual_best
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superpoint import (
    detect_keypoints,
    refine_keypoints,
    sample_descriptors,
)
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.synthetic.homographies import HomographyPair, HomographyRecipe, sample_pair
from superglue_ros.synthetic.photographs import photograph

SUBJECTS = ("astronaut", "coffee", "rocket")
SIZE = (320, 240)
KEYPOINTS = 256
RIGHT_PX = 3.0
SAME_PX = 1.5
"""Keypoints this near each other are the same one."""
THRESHOLD = 0.2
"""Of SuperGlue's probability, the paper's."""

LEAST_COMMON = 0.9
LEAST_RIGHT = 0.97
MOST_CORNER_PX = 0.5

Side = tuple[Tensor, Tensor, Tensor]
"""Keypoints (N, 2) pixels, scores (N,) and descriptors (N, D) of an image."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Matches of all pairs: ``points`` a (K, 4) array of pixels of both images for each pair.

    ``right``: matches within :data:`RIGHT_PX` of the truth. ``corner_px``: the median over the
    pairs of the mean corner error of the homography fitted to the right ones, infinite without.
    """

    points: tuple[NDArray[np.float64], ...]
    right: int
    corner_px: float


def superpoint_trial(engine: Any) -> Trial:
    """Mutual nearest neighbours of what an engine of SuperPoint detects and describes."""
    found = []
    for pair in pairs():
        (xy0, _, d0), (xy1, _, d1) = _features(engine, pair)
        alike = d0.float() @ d1.float().T
        to1, to0 = alike.argmax(1), alike.argmax(0)
        mutual = torch.nonzero(to0[to1] == torch.arange(len(to1), device=to1.device)).flatten()
        found.append(torch.cat([xy0[mutual], xy1[to1[mutual]]], dim=1))
    return _judged(found)


def superglue_trial(engine: Any) -> Trial:
    """What an engine of SuperGlue, made for the package's features, matches of them."""
    found = []
    for side0, side1 in _packaged_features():
        a, b = (engine.prepare(*side, SIZE) for side in (side0, side1))
        ((_, assignment),) = engine.match_pairs([a], [b], 100)
        rows, columns, _ = mutual_matches(assignment)
        found.append(torch.cat([side0[0][rows], side1[0][columns]], dim=1))
    return _judged(found)


def mutual_matches(log_assignment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and probabilities (K,), on the CPU, of the matches of (1, M + 1, N + 1)."""
    column, best = (values[0].cpu() for values in mutual_best(log_assignment))
    rows = torch.nonzero((column >= 0) & (best > THRESHOLD)).flatten()
    return rows, column[rows].long(), best[rows]


def verdict(expected: Trial, found: Trial) -> str:
    """What ``found`` loses of ``expected``, in words; "" if nothing that users feel."""
    total = sum(map(len, expected.points))
    common = sum(map(_common, expected.points, found.points)) / max(1, total)
    if common < LEAST_COMMON:
        return f"only {100 * common:.0f} % of the matches stay the same"
    if found.right < LEAST_RIGHT * expected.right:
        return f"{found.right} matches are right, not {expected.right}"
    if not found.corner_px <= expected.corner_px + MOST_CORNER_PX:
        return (
            f"corners of homographies are off by {found.corner_px:.2f} px, "
            f"not {expected.corner_px:.2f}"
        )
    return ""


@lru_cache(maxsize=1)
def pairs() -> tuple[HomographyPair, ...]:
    """The views. Raises :class:`DataError` where scikit-image is missing."""
    recipe = HomographyRecipe(
        width=SIZE[0],
        height=SIZE[1],
        perspective=0.1,
        rotation_deg=15.0,
        scale=(0.8, 1.25),
        translation=0.1,
        min_overlap=0.5,
    )
    made = []
    for seed, name in enumerate(SUBJECTS):
        grey = cv2.cvtColor(photograph(name), cv2.COLOR_BGR2GRAY)
        made.append(sample_pair(np.asarray(grey, np.uint8), np.random.default_rng(seed), recipe))
    return tuple(made)


@lru_cache(maxsize=1)
def packaged_kind() -> str:
    """The kind of the descriptors of the package's SuperPoint."""
    return load_superpoint().kind


@lru_cache(maxsize=1)
def _packaged_features() -> tuple[tuple[Side, Side], ...]:
    engine = SuperPointEngine(load_superpoint().network, torch.device("cpu"))
    return tuple(_features(engine, pair) for pair in pairs())


@torch.inference_mode()
def _features(engine: Any, pair: HomographyPair) -> tuple[Side, Side]:
    images = torch.from_numpy(np.stack([pair.image0, pair.image1])).unsqueeze(1).float() / 255
    probability, dense = engine.maps(images)
    detected = detect_keypoints(probability, KEYPOINTS, 0.005, 4, 4)
    sides = []
    for i, (keypoints, scores) in enumerate(detected):
        refined = refine_keypoints(probability[i], keypoints)
        descriptors = sample_descriptors(refined[None], dense[i : i + 1])[0]
        sides.append((refined.cpu(), scores.cpu(), descriptors.float().cpu()))
    return sides[0], sides[1]


def _judged(found: list[Tensor]) -> Trial:
    right, errors, points = 0, [], []
    width, height = SIZE
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    for pair, tensor in zip(pairs(), found, strict=True):
        matched = tensor.double().numpy()
        points.append(matched)
        if not len(matched):
            errors.append(np.inf)
            continue
        truth = cv2.perspectiveTransform(matched[None, :, :2], pair.homography)[0]
        good = np.linalg.norm(truth - matched[:, 2:], axis=1) < RIGHT_PX
        right += int(good.sum())
        estimate = None
        if good.sum() >= 4:  # the right ones are known, so no estimator has to be lucky
            estimate, _ = cv2.findHomography(matched[good, :2], matched[good, 2:])
        if estimate is None:
            errors.append(np.inf)
            continue
        moved = [cv2.perspectiveTransform(corners, h)[0] for h in (estimate, pair.homography)]
        errors.append(float(np.linalg.norm(moved[0] - moved[1], axis=1).mean()))
    return Trial(tuple(points), right, float(np.median(errors)))


def _common(expected: NDArray[np.float64], found: NDArray[np.float64]) -> int:
    """How many of the ``expected`` matches are found, both keypoints nearly at the same place."""
    if not len(expected) or not len(found):
        return 0
    apart = np.abs(expected[:, None] - found[None]).max(axis=2)
    return int((apart.min(axis=1) < SAME_PX).sum())
