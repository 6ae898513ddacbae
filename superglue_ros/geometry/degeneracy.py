"""Model selection: general motion, a planar scene, or a rotation only.

A planar scene or a rotation also fits the epipolar constraint, with a pose determined by noise.
Torr's GRIC ("An Assessment of Information Criteria for Motion Model Selection", CVPR 1997) weighs
the residuals against a model's degrees of freedom: per match the dimension of its manifold, per
model its parameters.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[np.float64]

_DATA_DIMENSION = 4  # a match is a point in R^4
_OUTLIER_COST = 2.0  # lambda_3 of the paper


class Model(Enum):
    """A two-view model as (dimension of its manifold, number of parameters)."""

    GENERAL = (3, 5)
    PLANE = (2, 8)
    ROTATION = (2, 3)


def gric(residuals: Array, model: Model) -> float:
    """GRIC score, smaller is better, of residuals (K, M) in units of the noise."""
    dimension, parameters = model.value
    count = len(residuals)
    squared = np.einsum("km,km->k", residuals, residuals)
    capped = np.minimum(squared, _OUTLIER_COST * (_DATA_DIMENSION - dimension))
    complexity = dimension * count * np.log(_DATA_DIMENSION)
    return float(capped.sum() + complexity + parameters * np.log(_DATA_DIMENSION * max(count, 1)))


def log10_false_alarms(count: int, inliers: int, model: Model, chance: float) -> float:
    """log10 of how often ``inliers`` of ``count`` random matches agree on a model by chance.

    ``chance`` is the probability that a random match lies within the threshold of a given model.
    """
    sample = 2 if model is Model.ROTATION else 5
    if inliers <= sample:
        return float(np.inf)
    # Ten essential matrices per sample of five, at most.
    tests = np.log(max(count - sample, 1) * 10.0)
    ways = _log_choose(count, inliers) + _log_choose(inliers, sample)
    return float((tests + ways + (inliers - sample) * np.log(min(chance, 1.0))) / np.log(10.0))


def _log_choose(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
