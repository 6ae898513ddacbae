"""Uncertainty of a pose: noise from the residuals, covariance from the derivatives.

Convention, here and in ``RelativePose``: 6x6, order x y z then rotation about fixed axes, both in
the reference frame, for ``t = t_estimate + dt`` and ``R = exp([dr]x) R_estimate``.

- Monocular pose: |t| = 1, so dt lies in the plane at right angles to t; the matrix has rank 5 and
  its null space is (t, 0): the length of the baseline is not estimated.
- ROTATION_ONLY: t = 0 with covariance I/3, mean and covariance of a uniformly distributed
direction.
- Metric pose: rank 6, metres and radians.

Two kinds of error add up. Independent errors of the matches are estimated from the residuals, as
the covariance of an M-estimator (Huber, "Robust Statistics", section 6.3). Errors that neighbouring
matches share (calibration, rolling shutter, depth bias) do not average out with more matches, and
the pose absorbs most of them, so the residuals do not show them. They are set by
``geometry.systematic_px`` and ``geometry.depth_systematic`` and propagated through the same
derivatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.least_squares import Fit

Array = NDArray[np.float64]

# The image is divided into this many columns of cells; matches in a cell share their error.
CELLS_ACROSS = 4
# Weight of the prior noise in the a-posteriori scale, as a number of residuals.
_PRIOR_COUNT = 5.0
_LEAST_SCALE_PX = 0.05
# Standard deviation of what the matches do not constrain: radians, or baselines, or metres.
_UNKNOWN = np.pi


def noise_scale(residuals: Array, expected: float, limit: float) -> float:
    """Standard deviation of one-dimensional ``residuals`` (K,) among outliers.

    Expectation-maximisation of a Gaussian about zero and a uniform density of outliers on
    ``[-4 limit, 4 limit]``, with a weak prior at ``expected``; at most ``limit``. Unlike the spread
    of the inliers it is not biased by the inlier threshold that cuts off the tails.
    """
    window = 4 * limit
    squared = residuals[np.abs(residuals) < window] ** 2
    scale, share = float(np.clip(expected, _LEAST_SCALE_PX, limit)), 0.7
    if not len(squared):
        return scale
    for _ in range(30):
        inlier = share / (np.sqrt(2 * np.pi) * scale) * np.exp(-squared / (2 * scale**2))
        probability = inlier / (inlier + (1 - share) / (2 * window))
        total = float(probability.sum())
        variance = (probability @ squared + _PRIOR_COUNT * expected**2) / (total + _PRIOR_COUNT)
        scale = float(np.clip(np.sqrt(variance), _LEAST_SCALE_PX, limit))
        share = float(np.clip(total / len(squared), 0.05, 0.999))
    return scale


def parameter_covariance(
    fit: Fit[Any], cells: NDArray[np.int64], systematic: float | Array
) -> Array:
    """Covariance (P, P) of the local parameters of a fit.

    ``cells`` (K,): matches of equal value share their systematic error, of standard deviation
    ``systematic`` in the units of ``Linearisation.shift``: one for all, each of S its own (S,), or
    whatever else broadcasts to (K, M, S).
    """
    u2 = fit.u2
    near = u2 < 1
    jacobian = fit.linearisation.jacobian[near]
    residuals = fit.linearisation.residuals[near]
    prior, u2 = fit.prior[near], u2[near]
    count, m, p = jacobian.shape
    # psi(r) = w(r) r and the mean of its derivative, the two averages of the asymptotic formula.
    squared = (1 - u2) ** 4 * np.einsum("km,km->k", residuals, residuals)
    slope = np.mean((1 - u2) ** 2 - 4 * u2 * (1 - u2) / m) if count else 1.0
    variance = squared.sum() / max(m * count - p, 1) / max(slope, 0.1) ** 2
    variance = max(variance, _LEAST_SCALE_PX**2)
    weighted = jacobian * prior[:, None, None]
    normal = np.einsum("kmp,kmq->pq", weighted, jacobian)
    spread = variance * np.einsum("kmp,kmq->pq", weighted, weighted)
    if np.any(systematic):
        shift = (fit.linearisation.shift * systematic)[near]
        push = np.einsum("kmp,kmd->kpd", weighted, shift)
        _, index = np.unique(cells[near], return_inverse=True)
        shared = np.zeros((int(index.max(initial=-1)) + 1, *push.shape[1:]))
        np.add.at(shared, index, push)
        spread += np.einsum("cpd,cqd->pq", shared, shared)
    values, vectors = np.linalg.eigh(normal)
    known = values > 1e-12 * max(float(values[-1]), 1e-300)
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    unknown = vectors[:, ~known]
    covariance = inverse @ spread @ inverse + _UNKNOWN**2 * unknown @ unknown.T
    return np.asarray((covariance + covariance.T) / 2)


def leverage(fit: Fit[Any]) -> Array:
    """Leverage (K,) in [0, 1] of each match: the diagonal of the hat matrix."""
    jacobian = fit.linearisation.jacobian
    weighted = jacobian * fit.prior[:, None, None]
    normal = np.einsum("kmp,kmq->pq", weighted, jacobian)
    inverse = np.linalg.pinv(normal, hermitian=True)
    return np.asarray(np.einsum("kmp,pq,kmq->k", weighted, inverse, jacobian))


def image_cells(points: Array, width: int) -> NDArray[np.int64]:
    """Number (K,) of the square image cell of each pixel (K, 2)."""
    size = width / CELLS_ACROSS
    cells = np.floor(np.asarray(points, np.float64) / size).astype(np.int64)
    return cells[:, 0] + 100003 * cells[:, 1]


def unit_translation_covariance(parameters: Array, basis: Array) -> Array:
    """(6, 6) of (rotation, direction) parameters (5, 5); ``basis`` (3, 2) spans the direction's."""
    spread = np.zeros((6, 5))
    spread[:3, 3:5] = basis
    spread[3:, :3] = np.eye(3)
    return spread @ parameters @ spread.T


def rotation_covariance(parameters: Array) -> Array:
    """(6, 6) of rotation parameters (3, 3) with unknown translation direction."""
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = np.eye(3) / 3
    covariance[3:, 3:] = parameters
    return covariance


def metric_covariance(parameters: Array) -> Array:
    """(6, 6) of (rotation, translation) parameters (6, 6), in the order of the message."""
    order = [3, 4, 5, 0, 1, 2]
    return parameters[np.ix_(order, order)]
