"""A lower precision is taken only where users do not feel it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.engines import precision
from superglue_ros.engines.precision import (
    FLOAT32,
    Arithmetic,
    difference,
    superglue_arithmetic,
    superpoint_arithmetic,
)
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.trial import Trial, superglue_trial, verdict
from superglue_ros.matchers.superglue import SuperGlueMatcher
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
    initialise_as_optimal_matching,
)
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import load_superglue, load_superpoint
from superglue_ros.rig import Rig
from superglue_ros.settings import from_flat

CPU = torch.device("cpu")
BFLOAT16 = Arithmetic(torch.bfloat16)


def certain_network() -> SuperGlue:
    """Descriptors that match at all match with probability one: rounding changes nothing."""
    network = SuperGlue(SuperGlueConfig(32, 32, 1, 4, (8,))).eval()
    initialise_as_optimal_matching(network, scale=300.0)
    network.dustbin.data.fill_(200.0)
    return network


def doubtful_network() -> SuperGlue:
    torch.manual_seed(0)
    network = SuperGlue(SuperGlueConfig(32, 32, 2, 4, (8,))).eval()
    network.final.weight.data.copy_(8 * torch.eye(32))
    return network


def test_float32_needs_no_check():
    assert superglue_arithmetic(doubtful_network(), "float32", CPU) == FLOAT32


def test_a_precision_that_changes_matches_is_refused_and_says_so(caplog):
    assert superglue_arithmetic(doubtful_network(), "bfloat16", CPU) == FLOAT32
    assert "SuperGlue in bfloat16 is refused" in caplog.text
    assert "float32 stays" in caplog.text


def test_a_precision_that_changes_nothing_is_taken():
    assert superglue_arithmetic(certain_network(), "bfloat16", CPU) == BFLOAT16


def test_a_cpu_has_no_tf32():
    assert superglue_arithmetic(certain_network(), "tfloat32", CPU) == FLOAT32


def test_auto_takes_one_of_the_passing():
    assert superglue_arithmetic(certain_network(), "auto", CPU) in (FLOAT32, BFLOAT16)
    assert superglue_arithmetic(doubtful_network(), "auto", CPU) == FLOAT32


def test_keypoints_that_move_are_refused():
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 4, 8, 8), 8, 16, batch_norm=False)).eval()
    assert superpoint_arithmetic(network, "bfloat16", CPU) == FLOAT32


def test_what_is_reported_is_the_precision_in_effect():
    for network, used in ((certain_network(), "bfloat16"), (doubtful_network(), "float32")):
        arithmetic = superglue_arithmetic(network, "bfloat16", CPU)
        matcher = SuperGlueMatcher(
            SuperGlueEngine(network, CPU, *arithmetic), "kind", 32, MatcherConfig()
        )
        assert matcher.precision == used
        asked = {"device": "cpu", "precision": "bfloat16", "front_end.name": "sift"}
        config = from_flat(Config, {**asked, "matcher.name": "mutual"})
        assert Rig(config).precision == "float32"  # no network, whatever is asked for
        both = Rig(config, matcher=matcher).precision
        assert both == {"bfloat16": "float32, bfloat16", "float32": "float32"}[used]


def test_the_packaged_networks_lose_nothing_in_bfloat16():
    point = load_superpoint()
    assert superpoint_arithmetic(point.network, "bfloat16", CPU) == BFLOAT16
    for name in ("small", "wide"):
        network = load_superglue(name).network
        assert superglue_arithmetic(network, "bfloat16", CPU, point.kind) == BFLOAT16


def test_without_units_for_bfloat16_auto_does_not_even_try_it(monkeypatch, caplog):
    monkeypatch.setattr(precision, "_has_bfloat16", lambda _: False)
    assert superglue_arithmetic(doubtful_network(), "auto", CPU) == FLOAT32
    assert not caplog.records


def test_the_same_weights_are_checked_once(monkeypatch):
    asked = []

    def choose(*_):
        asked.append(1)
        return BFLOAT16

    monkeypatch.setattr(precision, "_choose", choose)
    monkeypatch.setattr(precision, "_verdicts", {})
    network = certain_network()
    for _ in range(2):
        assert superglue_arithmetic(network, "bfloat16", CPU) == BFLOAT16
    assert len(asked) == 1
    network.dustbin.data.fill_(199.0)
    superglue_arithmetic(network, "bfloat16", CPU)
    superglue_arithmetic(network, "auto", CPU)
    assert len(asked) == 3


TRIAL = Trial((np.arange(400.0).reshape(100, 4) * 5,), 90, 1.0)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (TRIAL, ""),
        (replace(TRIAL, points=(TRIAL.points[0][:92] + 1,)), ""),
        (replace(TRIAL, points=(TRIAL.points[0][:80],)), "only 80 % of the matches stay the same"),
        (replace(TRIAL, points=(TRIAL.points[0] + 4,)), "only 0 % of the matches stay the same"),
        (replace(TRIAL, right=80), "80 matches are right, not 90"),
        (replace(TRIAL, corner_px=1.7), "off by 1.70 px, not 1.00"),
        (Trial((np.zeros((0, 4)),), 0, np.inf), "only 0 % of the matches stay the same"),
        (replace(TRIAL, corner_px=float("nan")), "off by nan px"),
    ],
)
def test_what_counts_is_the_task(found, said):
    assert (said in verdict(TRIAL, found)) if said else not verdict(TRIAL, found)


def test_a_network_that_matches_nothing_is_refused():
    """As some do in float16, without an error."""

    class Silent(SuperGlueEngine):
        def match_pairs(self, references, queries, iterations=100):
            for k, assignment in super().match_pairs(references, queries, iterations):
                yield k, torch.full_like(assignment, float("nan"))

    network = load_superglue().network
    expected = superglue_trial(SuperGlueEngine(network, CPU))
    assert len(expected.points) == 3
    assert expected.right > 300
    assert verdict(expected, superglue_trial(Silent(network, CPU)))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({1: 0.5, 2: 0.9}, ""),
        ({1: 0.505, 2: 0.9}, ""),
        ({1: 0.5}, "1 of 2 results change"),
        ({1: 0.5, 3: 0.9}, "2 of 2 results change"),
        ({1: 0.6, 2: 0.9}, "probabilities change by 0.100"),
    ],
)
def test_differences_on_made_up_sets(found, said):
    assert difference({1: 0.5, 2: 0.9}, found) == said
