"""The direct linear transform: a homography from all matches, without any robustness."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def dlt_homography(
    points0: NDArray, points1: NDArray, weights: NDArray | None = None
) -> Floats | None:
    """Direct linear transform with normalised points (Hartley and Zisserman, algorithm 4.2).

    Least squares over all matches without any robustness, each counting ``weights`` (K,) times;
    None below four matches.
    """
    if len(points0) < 4:
        return None
    similarity0, similarity1 = _conditioning(points0), _conditioning(points1)
    x0 = np.c_[points0, np.ones(len(points0))] @ similarity0.T
    x1 = np.c_[points1, np.ones(len(points1))] @ similarity1.T
    zero = np.zeros_like(x0)
    rows_x = np.hstack([x0, zero, -x1[:, :1] * x0])
    rows_y = np.hstack([zero, x0, -x1[:, 1:2] * x0])
    # The null vector of A is that of the small matrix AᵀA; the points are conditioned.
    system = np.vstack([rows_x, rows_y])
    weighted = system if weights is None else np.tile(weights, 2)[:, None] * system
    _, vectors = np.linalg.eigh(weighted.T @ system)
    estimate = np.linalg.inv(similarity1) @ vectors[:, 0].reshape(3, 3) @ similarity0
    return estimate if np.isfinite(estimate).all() else None


def _conditioning(points: NDArray) -> Floats:
    """Similarity that moves points to the origin at a mean distance of sqrt(2)."""
    centre: Floats = np.asarray(points, np.float64).mean(axis=0)
    spread = float(np.linalg.norm(points - centre, axis=1).mean())
    scale = math.sqrt(2) / max(spread, 1e-12)
    x, y = -scale * centre
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])
