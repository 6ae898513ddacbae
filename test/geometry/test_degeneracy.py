"""Model selection and the test against chance, on simulated residuals."""

from itertools import pairwise

import numpy as np
import pytest

from superglue_ros.geometry.degeneracy import Model, gric, log10_false_alarms


def test_with_equal_residuals_the_simpler_model_wins():
    rng = np.random.default_rng(0)
    line, point = rng.normal(size=(100, 1)), rng.normal(size=(100, 2))
    assert gric(point, Model.ROTATION) < gric(point, Model.PLANE) < gric(line, Model.GENERAL)


def test_structure_off_the_plane_speaks_for_the_general_model():
    rng = np.random.default_rng(0)
    point = rng.normal(size=(100, 2))
    point[:60] += 8
    assert gric(rng.normal(size=(100, 1)), Model.GENERAL) < gric(point, Model.PLANE)


def test_an_agreement_of_few_is_chance_and_one_of_many_is_not():
    assert log10_false_alarms(60, 12, Model.GENERAL, 0.01) > -3
    assert log10_false_alarms(60, 40, Model.GENERAL, 0.01) < -30
    assert log10_false_alarms(100, 5, Model.GENERAL, 0.01) == np.inf
    assert log10_false_alarms(100, 50, Model.ROTATION, 1e-4) < -100


def test_false_alarms_fall_with_every_inlier():
    values = [log10_false_alarms(100, k, Model.GENERAL, 0.01) for k in range(20, 101, 10)]
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[-1] == pytest.approx(np.log10(950 * 75287520) - 190, abs=1e-6)
