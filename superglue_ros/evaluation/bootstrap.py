"""Bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.float64]], float]


def interval(
    values: NDArray[np.float64],
    statistic: Statistic,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``statistic`` over the rows of ``values`` (N,) or (N, C).

    NaN where there are no rows, or where the statistic is NaN.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    return _percentiles(_resampled(values, statistic, seed, resamples), level)


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    statistic: Statistic,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Statistic of ``second`` minus that of ``first`` on the same cases, and its interval.

    Both are resampled together: the common difficulty of cases does not widen the interval. An
    interval without 0 is a significant difference.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} cases are not the same cases")
    both = np.stack([first, second], axis=1)

    def difference(rows: NDArray[np.float64]) -> float:
        return statistic(rows[:, 1]) - statistic(rows[:, 0])

    low, high = interval(both, difference, seed, resamples, level)
    return difference(both), low, high


def _resampled(
    values: NDArray[np.float64], statistic: Statistic, seed: int, resamples: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    n = len(values)
    return np.array([statistic(values[rng.integers(0, n, n)]) for _ in range(resamples)])


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
