from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.evaluation.bootstrap import interval, paired_difference


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_interval_has_the_width_of_the_central_limit_theorem():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values, mean)
    assert (low, high) == interval(values, mean)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.15)
    assert all(np.isnan(interval(np.zeros(0), mean)))


def test_pairing_finds_a_difference_that_unpaired_noise_hides():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 200)
    value, low, high = paired_difference(hard, hard + 0.3 + rng.normal(0, 0.5, 200), mean)
    assert value == pytest.approx(0.3, abs=0.1)
    assert 0 < low < value < high < 1
    same = paired_difference(hard, hard, mean)
    assert same == (0, 0, 0)
    with pytest.raises(ValueError, match="same cases"):
        paired_difference(hard, hard[1:], mean)


@pytest.mark.filterwarnings("error")
def test_a_statistic_that_is_nowhere_defined_has_no_interval():
    assert np.isnan(interval(np.array([np.nan, np.nan]), lambda v: float(v.mean()))).all()
