"""A lower precision is taken only where it changes nothing that matters."""

from __future__ import annotations

import pytest
import torch

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.engines.precision import difference, superglue_dtype, superpoint_dtype
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.matchers.superglue import SuperGlueMatcher
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
    initialise_as_optimal_matching,
)
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.rig import Rig
from superglue_ros.settings import from_flat

CPU = torch.device("cpu")


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
    assert superglue_dtype(doubtful_network(), "float32", CPU) == torch.float32


def test_a_precision_that_changes_matches_is_refused_and_says_so(caplog):
    assert superglue_dtype(doubtful_network(), "bfloat16", CPU) == torch.float32
    assert "SuperGlue in bfloat16 is refused" in caplog.text
    assert "float32 stays" in caplog.text


def test_a_precision_that_changes_nothing_is_taken():
    assert superglue_dtype(certain_network(), "bfloat16", CPU) == torch.bfloat16


def test_auto_takes_one_of_the_passing():
    assert superglue_dtype(certain_network(), "auto", CPU) in (torch.float32, torch.bfloat16)
    assert superglue_dtype(doubtful_network(), "auto", CPU) == torch.float32


def test_keypoints_that_move_are_refused():
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 4, 8, 8), 8, 16, batch_norm=False)).eval()
    assert superpoint_dtype(network, "bfloat16", CPU) == torch.float32


def test_what_is_reported_is_the_precision_in_effect():
    for network, used in ((certain_network(), "bfloat16"), (doubtful_network(), "float32")):
        dtype = superglue_dtype(network, "bfloat16", CPU)
        matcher = SuperGlueMatcher(
            SuperGlueEngine(network, CPU, dtype), "kind", 32, MatcherConfig()
        )
        assert matcher.precision == used
        asked = {"device": "cpu", "precision": "bfloat16", "front_end.name": "sift"}
        config = from_flat(Config, {**asked, "matcher.name": "mutual"})
        assert Rig(config).precision == "float32"  # no network, whatever is asked for
        both = Rig(config, matcher=matcher).precision
        assert both == {"bfloat16": "float32, bfloat16", "float32": "float32"}[used]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({1: 0.5, 2: 0.9}, ""),
        ({1: 0.505, 2: 0.9}, ""),
        ({1: 0.5}, "1 of 2 results change"),
        ({1: 0.5, 3: 0.9}, "2 of 2 results change"),
        ({1: 0.6, 2: 0.9}, "probabilities change by 0.100"),
    ],
)
def test_verdicts(found, verdict):
    assert difference({1: 0.5, 2: 0.9}, found) == verdict
