"""Whether matches move as the matches around them do.

Neighbours in an image nearly always lie on one surface, and then go together: the vector from a
match to a neighbour turns and grows as the vectors to the others do. A wrong match has no reason to
go along. No model of the whole motion is needed, so that parallax and moving things do no harm.
The idea is that of grid-based motion statistics (Bian et al., CVPR 2017) and of AdaLAM (Cavalli et
al., ECCV 2020); here neighbours count by how credible they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

NEIGHBOURS = 20
TOLERANCE = 0.2
"""Deviation of the vector to a neighbour, as a part of its length, at which half a vote is left."""
_SLACK_PX = 8.0  # added to that length: keypoints are noisy
_OWN = 0.5  # the weight of the overall similarity in that of a neighbourhood, in votes
_STEPS = 2
_SAMPLE = 96  # matches, the most credible ones, that the overall similarity is taken from
_FAR_PX = 40.0
_MOST_SPREAD = 0.25
_LEAST_VECTORS = 10
_NOISE_PX = 2.0
_ENOUGH = 3.0  # votes that fix an affine motion


@dataclass(frozen=True, eq=False)
class LocalMotion:
    """What neighbours say of K matches, those of both images together, (K,) each.

    ``support``: votes of the neighbours that go along, their credibilities added up. ``misfit``:
    logarithm of one plus the square of how far the match is from where these would have it, in
    units of the keypoints' noise; less where they are few.
    """

    support: Floats
    misfit: Floats


def local_motion(
    points_ref: NDArray[np.floating], points_query: NDArray[np.floating], credible: Floats
) -> LocalMotion:
    """What the neighbours of matches (K, 2), (K, 2) [px] say of them.

    Pixels are those of images of about 640 pixels. ``credible`` (K,): probability that a match is
    right, by which it counts as a neighbour. Matches that share a keypoint are rivals and say
    nothing of each other. Independent of the order of the matches; swapping the images changes
    nothing.
    """
    a, b = (np.ascontiguousarray(p, np.float64) for p in (points_ref, points_query))
    there, back = _one_way(a, b, credible), _one_way(b, a, credible)
    return LocalMotion(*(one + other for one, other in zip(there, back, strict=True)))


def _one_way(points: Floats, others: Floats, credible: Floats) -> tuple[Floats, Floats]:
    """By the neighbours among ``points``."""
    count = len(points)
    if count < 2:
        return np.zeros(count), np.zeros(count)
    a, b = (p[:, 0] + 1j * p[:, 1] for p in (points, others))
    _, near = cKDTree(points).query(points, min(NEIGHBOURS + 1, count))
    to_a, to_b = a[near] - a[:, None], b[near] - b[:, None]
    length = np.abs(to_a)
    votes = np.where(length > 0, credible[near], 0.0)  # neither itself nor a rival
    size = length + _SLACK_PX
    best = np.argsort(-credible, kind="stable")[:_SAMPLE]
    overall = overall_similarity(a[best], b[best])
    similarity = np.full(count, overall)
    for _ in range(_STEPS):  # least squares with Cauchy's weights
        off = np.abs(to_b - similarity[:, None] * to_a)
        weights = votes * _agreement(off / size) / size**2
        similarity = ((weights * to_b * to_a.conj()).sum(1) + _OWN * overall) / (
            (weights * length**2).sum(1) + _OWN
        )
    off_by = to_b - similarity[:, None] * to_a
    agreeing = votes * _agreement(np.abs(off_by) / size)
    support = agreeing.sum(1)
    distance = np.abs(_intercept(to_a, off_by, agreeing))
    misfit = np.log1p((distance / _NOISE_PX) ** 2) * np.minimum(support / _ENOUGH, 1)
    return support, misfit


def _agreement(part: Floats) -> Floats:
    return np.asarray(1 / (1 + (part / TOLERANCE) ** 2))


def overall_similarity(points: Complexes, others: Complexes) -> complex:
    """How vectors between far ones of matches (K,), x + iy [px], turn and grow, by the median.

    1 where they do not agree.
    """
    i, j = np.triu_indices(len(points), 1)
    to, to_other = points[j] - points[i], others[j] - others[i]
    far = np.abs(to) > _FAR_PX
    if far.sum() < _LEAST_VECTORS:
        return 1.0
    ratio = to_other[far] / to[far]
    middle = complex(np.median(ratio.real), np.median(ratio.imag))
    spread = float(np.median(np.abs(ratio - middle)))
    return middle if spread < _MOST_SPREAD * abs(middle) else 1.0


def _intercept(to: Complexes, value: Complexes, weights: Floats) -> Complexes:
    """Of the affine functions of the vectors ``to`` (K, N) nearest to ``value``: (K,) at zero."""
    terms = np.stack([to.real, to.imag, np.ones(to.shape)], axis=1)  # (K, 3, N)
    weighted = terms * weights[:, None]
    normal = weighted @ terms.transpose(0, 2, 1) + np.diag([_NOISE_PX**2, _NOISE_PX**2, 1e-3])
    right = weighted @ np.stack([value.real, value.imag], axis=2)
    found = np.linalg.solve(normal, right)[:, 2]
    return np.asarray(found[:, 0] + 1j * found[:, 1])
