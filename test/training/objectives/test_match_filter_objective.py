"""Training of the filters of matches: labels and loss by hand, from recipe to weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from superglue_ros.cli import main
from superglue_ros.errors import ConfigError
from superglue_ros.geometry.ground_truth import MatchLabels
from superglue_ros.networks.weights import load_match_filter
from superglue_ros.training.data.batches import PairSample, read_pair
from superglue_ros.training.data.cache import write_shard
from superglue_ros.training.objectives.match_filter import (
    FilterBatch,
    _still,
    filter_loss,
    judged_matches,
    warped,
)
from superglue_ros.training.recipes import FilterLossConfig, MatchFilterRecipe

from ..conftest import synthetic_shard


def test_nearest_neighbours_are_judged_by_the_labelled_partner():
    """Five keypoints: right, near it, beyond, without a partner, unknown."""
    points0 = torch.zeros(5, 2)
    points1 = torch.tensor([[10.0, 10], [20, 20], [30, 30], [40, 40], [50, 50], [20, 22], [60, 30]])
    words = torch.eye(8)[:7]
    chosen = [0, 5, 6, 3, 4]  # what the descriptors say
    matches0 = np.array([0, 1, 2, -1, -2], np.int32)
    labels = MatchLabels(matches0, np.full(7, -1, np.int32))
    size, scores = torch.tensor([100.0, 100]), torch.ones(7)
    sample = PairSample(
        ((points0, scores[:5], words[chosen], size), (points1, scores, words, size)), labels
    )
    matches, right = judged_matches(sample)
    assert right.tolist() == [1, 1, 0, 0, -1]
    torch.testing.assert_close(matches[:, 2:], (points1[chosen] - 49.5) / 50)
    near = replace(sample, labels=MatchLabels(np.array([0, 1, 2, -1, -2]), labels.matches1))
    near.sides[1][0][5] = torch.tensor([20.0, 24])  # 4 px off: neither right nor wrong
    assert judged_matches(near)[1].tolist() == [1, -1, 0, 0, -1]


def batch(planar: bool, regress: bool = True) -> FilterBatch:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(-1, 1, (1, 24, 2))).float()
    right = torch.ones(1, 24, dtype=torch.long)
    right[:, 20:] = 0
    moved = points + 0.1
    moved[:, 20:] += 0.4
    return FilterBatch(torch.cat([points, moved], 2), right, planar, regress)


def test_the_loss_by_hand():
    logits = torch.zeros(1, 24)
    logits[:, :20], logits[:, 20:] = 2.0, -1.0
    plain = FilterLossConfig(regression=0.0)
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert float(filter_loss(plain, logits, batch(True))) == pytest.approx(expected, rel=1e-5)
    with_model = FilterLossConfig(regression=1.0)
    assert float(filter_loss(with_model, logits, batch(True, False))) == pytest.approx(expected)
    # Only right matches have a weight: their homography is exact.
    assert float(filter_loss(with_model, logits, batch(True))) == pytest.approx(expected, abs=1e-3)
    # With wrong ones it is not, and the right matches are off.
    all_kept = filter_loss(with_model, logits.abs(), batch(True))
    assert float(all_kept) > float(filter_loss(plain, logits.abs(), batch(True))) + 5e-3
    matrix = FilterLossConfig(form="matrix", regression=1.0)
    assert float(filter_loss(matrix, logits, batch(True))) == pytest.approx(expected, abs=1e-4)
    assert float(filter_loss(matrix, logits.abs(), batch(True))) > expected + 0.1


def test_a_warp_keeps_a_homography_a_homography_and_a_still_view_its_labels():
    first = batch(True)
    moved = warped(first.matches[0], 0.1, np.random.default_rng(2))
    assert (moved - first.matches[0]).abs().max() > 0.05
    logits = torch.where(first.right == 1, 2.0, -1.0)
    config, still_first = FilterLossConfig(regression=1.0), replace(first, matches=moved[None])
    by_class = filter_loss(replace(config, regression=0.0), logits, first)
    assert filter_loss(config, logits, still_first) == pytest.approx(float(by_class), abs=1e-3)
    sample = read_pair(synthetic_shard(0), 0)
    _, right = judged_matches(_still(sample, np.random.default_rng(0)))
    assert (right == 1).all()


def test_from_a_recipe_to_weights_that_tell_right_from_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("planes", 0), ("rooms", 1)):
        source = {"planes": "homography", "rooms": "rooms"}[name]
        config = json.dumps(json.dumps({"source": source}))
        shard = synthetic_shard(seed, pairs=12, points=40, dim=6)
        write_shard(shard, tmp_path / name / "0.safetensors", "any", config)
    recipe = {
        "output": "run",
        "steps": 40,
        "caches": {"planes": 1.0, "rooms": 1.0},
        "validation": ["planes"],
        "network": {"width": 16, "blocks": 2, "clusters": 8, "cluster_blocks": 1, "stages": 2},
        "sampling": {"keypoints": 40, "pairs": 6},
        "loss": {"regression_from": 20},
        "optimiser": {"name": "adamw", "learning_rate": 0.01, "clip": 1.0},
        "loop": {"precision": "float32", "report_every": 10, "device": "cpu"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "filter", "recipe.yaml"]) == 0
    rows = [row.split(",") for row in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    assert float(columns["loss"][3]) < float(columns["loss"][0]) - 0.05
    assert float(columns["planes precision"][-1]) > 60
    assert main(["train", "export", "recipe.yaml", "out.safetensors", "--provenance", "mine"]) == 0
    loaded = load_match_filter("oanet", "out.safetensors")
    assert loaded.provenance == "mine"
    assert loaded.network.config.clusters == 8


def test_recipes_without_caches_are_refused():
    with pytest.raises(ConfigError, match="caches is empty"):
        MatchFilterRecipe(output="x", steps=1, caches={})
