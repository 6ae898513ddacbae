"""Rival motions: when quite different poses explain the matches almost equally well.

Two views have several local optima: a plane allows two motions, and in a narrow field of view
rotation resembles translation. The covariance of one optimum ignores the others, so the
optima found are weighted by their probability.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.least_squares import Fit, minimise
from superglue_ros.geometry.rotation import angle, log, tangent_basis
from superglue_ros.geometry.two_view_models import Motion, RayPairs, epipolar

Array = NDArray[np.float64]

_SAME_RAD = np.deg2rad(1.0)
_LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True, eq=False)
class Mode:
    """A fitted motion and its probability among its rivals."""

    fit: Fit[Motion]
    probability: float


def find_modes(starts: Iterable[Motion], pairs: RayPairs, prior: Array, noise: float) -> list[Mode]:
    """Distinct local optima of the epipolar cost that ``starts`` lead to, the likeliest first.

    ``noise`` is the residuals' standard deviation with systematic errors in it: a rival counts
    unless it is worse by more than those could explain.
    """
    model = partial(epipolar, pairs=pairs)
    fits = [
        minimise(replace(start, plane=None), model, Motion.moved, prior, noise, 8)
        for start in starts
    ]
    fits.sort(key=lambda fit: fit.cost)
    kept: list[Fit[Motion]] = []
    odds: list[float] = []
    for fit in fits:
        lead = float(np.exp(fits[0].cost - fit.cost))
        if lead < _LEAST_PROBABILITY:
            break
        if all(_apart(fit.state, other.state) > _SAME_RAD for other in kept):
            kept.append(fit)
            odds.append(lead)
    return [Mode(fit, lead / sum(odds)) for fit, lead in zip(kept, odds, strict=True)]


def second_moment(motion: Motion, rivals: Iterable[Mode]) -> Array:
    """What ``rivals`` add to the covariance (5, 5) about ``motion``: p d d^T over each."""
    basis = tangent_basis(motion.translation)
    total = np.zeros((5, 5))
    for rival in rivals:
        turned = log(rival.fit.state.rotation @ motion.rotation.T)
        apart = np.concatenate(
            (turned, basis.T @ (rival.fit.state.translation - motion.translation))
        )
        total += rival.probability * np.outer(apart, apart)
    return total


def _apart(first: Motion, second: Motion) -> float:
    turn = angle(first.rotation @ second.rotation.T)
    aside = float(np.linalg.norm(first.translation - second.translation))
    return max(turn, aside)
