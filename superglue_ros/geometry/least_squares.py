"""Robust nonlinear least squares over a handful of parameters: Levenberg-Marquardt with weights.

Every residual is whitened, that is, has unit variance under the noise model; Tukey's biweight takes
the weight of what lies far outside it to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = TypeVar("State")

# 95 % efficiency on Gaussian residuals; 5.0 for pairs of coordinates does about the same.
TUKEY = 4.685


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Whitened residuals (K, M) of K matches and their derivative (K, M, P) by the parameters."""

    residuals: Array
    jacobian: Array


@dataclass(frozen=True, eq=False)
class Fit(Generic[State]):
    """Minimiser, the last linearisation there, and the robust ``weights`` (K,) in [0, 1]."""

    state: State
    linearisation: Linearisation
    weights: Array


def tukey_weights(residuals: Array, scale: float) -> Array:
    """Biweight (K,) of residuals (K, M) whose true standard deviation is ``scale``."""
    u2 = np.einsum("km,km->k", residuals, residuals) / (TUKEY * scale) ** 2
    return np.where(u2 < 1, (1 - u2) ** 2, 0.0)


def minimise(
    state: State,
    linearise: Callable[[State], Linearisation],
    retract: Callable[[State, Array], State],
    prior: Array,
    scale: float,
    iterations: int = 15,
) -> Fit[State]:
    """Minimise ``sum prior_k rho(|r_k| / scale)`` from ``state``; ``prior`` (K,) >= 0.

    ``retract(state, step)`` moves a state by (P,) local parameters. Never ends worse than it began.
    """
    damping = 1e-6
    current = linearise(state)
    cost = _cost(current.residuals, prior, scale)
    for _ in range(iterations):
        weights = prior * tukey_weights(current.residuals, scale)
        normal, gradient = normal_equations(current, weights)
        diagonal = np.diag(np.maximum(np.diag(normal), 1e-12))
        step = -np.linalg.lstsq(normal + damping * diagonal, gradient, rcond=None)[0]
        candidate = retract(state, step)
        trial = linearise(candidate)
        trial_cost = _cost(trial.residuals, prior, scale)
        if trial_cost <= cost:
            improved = cost - trial_cost
            state, current, cost = candidate, trial, trial_cost
            damping = max(damping / 10, 1e-9)
            if improved <= 1e-9 * max(cost, 1e-12):
                break
        elif damping > 1e3:
            break
        else:
            damping = max(damping * 10, 1e-4)
    return Fit(state, current, tukey_weights(current.residuals, scale))


def normal_equations(linearisation: Linearisation, weights: Array) -> tuple[Array, Array]:
    """``J^T W J`` (P, P) and ``J^T W r`` (P,) with one weight per match."""
    k, m, p = linearisation.jacobian.shape
    jacobian = linearisation.jacobian.reshape(k * m, p)
    weighted = jacobian * np.repeat(weights, m)[:, None]
    return weighted.T @ jacobian, weighted.T @ linearisation.residuals.reshape(k * m)


def _cost(residuals: Array, prior: Array, scale: float) -> float:
    c2 = (TUKEY * scale) ** 2
    u2 = np.minimum(np.einsum("km,km->k", residuals, residuals) / c2, 1.0)
    return float(prior @ (1 - (1 - u2) ** 3)) * c2 / 6
