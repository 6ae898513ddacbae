"""Robust nonlinear least squares over a few parameters: reweighted Levenberg-Marquardt.

Residuals are whitened, that is, in units of the noise model's standard deviation, up to one common
``scale`` that is estimated from them; Tukey's biweight gives distant outliers zero weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = TypeVar("State")

# Keeps 95 % of the efficiency of plain least squares on Gaussian residuals.
TUKEY = 4.685


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A model at one state, for K matches of M residuals and P parameters.

    ``residuals`` (K, M) whitened; ``jacobian`` (K, M, P) their derivative by the parameters;
    ``shift`` (K, M, S) their change when the match is off by one unit in x and in y, and in
    whatever else the model measures.
    """

    residuals: Array
    jacobian: Array
    shift: Array


@dataclass(frozen=True, eq=False)
class Fit(Generic[State]):
    """Minimiser, the linearisation there, the ``prior`` weights (K,) and the ``scale`` used."""

    state: State
    linearisation: Linearisation
    prior: Array
    scale: float

    @property
    def cost(self) -> float:
        """Robust cost in units of the scale: half a chi-square for residuals that fit."""
        return _cost(self.linearisation.residuals, self.prior, self.scale) / self.scale**2

    @property
    def u2(self) -> Array:
        """Squared residuals (K,) over the square of where Tukey's weight reaches zero."""
        return _u2(self.linearisation.residuals, self.scale)


def minimise(
    state: State,
    linearise: Callable[[State], Linearisation],
    retract: Callable[[State, Array], State],
    prior: Array,
    scale: float,
    iterations: int = 12,
) -> Fit[State]:
    """Minimise ``sum_k prior_k rho(|r_k| / scale)`` from ``state``; ``prior`` (K,) >= 0.

    ``retract(state, step)`` moves a state by (P,) local parameters. The
    cost never increases.
    """
    damping = 1e-6
    current = linearise(state)
    cost = _cost(current.residuals, prior, scale)
    for _ in range(iterations):
        weights = prior * np.maximum(1 - _u2(current.residuals, scale), 0.0) ** 2
        normal, gradient = _normal_equations(current, weights)
        diagonal = np.diag(np.maximum(np.diag(normal), 1e-12))
        solution = np.linalg.lstsq(normal + damping * diagonal, gradient, rcond=None)[0]
        step = -np.asarray(solution, np.float64)
        candidate = retract(state, step)
        trial = linearise(candidate)
        trial_cost = _cost(trial.residuals, prior, scale)
        if trial_cost <= cost:
            improved = cost - trial_cost
            state, current, cost = candidate, trial, trial_cost
            damping = max(damping / 10, 1e-9)
            if improved <= 1e-6 * cost:
                break
        elif damping > 1e3:
            break
        else:
            damping = max(damping * 10, 1e-4)
    return Fit(state, current, prior, scale)


def _normal_equations(linearisation: Linearisation, weights: Array) -> tuple[Array, Array]:
    """``J^T W J`` (P, P) and ``J^T W r`` (P,) with one weight per match."""
    k, m, p = linearisation.jacobian.shape
    jacobian = linearisation.jacobian.reshape(k * m, p)
    weighted = jacobian * np.repeat(weights, m)[:, None]
    return weighted.T @ jacobian, weighted.T @ linearisation.residuals.reshape(k * m)


def _u2(residuals: Array, scale: float) -> Array:
    squared: Array = np.einsum("km,km->k", residuals, residuals)
    return squared / (TUKEY * scale) ** 2


def _cost(residuals: Array, prior: Array, scale: float) -> float:
    u2 = np.minimum(_u2(residuals, scale), 1.0)
    return float(prior @ (1 - (1 - u2) ** 3)) * (TUKEY * scale) ** 2 / 6
