"""`train ablation`: variants and seeds on the same views, a table, and going on."""

from __future__ import annotations

import json

import pytest

from superglue_ros.errors import ConfigError
from superglue_ros.networks.weights import load_superglue
from superglue_ros.settings import load
from superglue_ros.training.ablation import AblationRecipe, Row, run_ablation, table

BASE = """
output: unused
network: {descriptor_dim: 16, width: 16, layers: 1, heads: 2, keypoint_encoder: [8]}
stages: [{name: only, steps: 2, caches: {CACHE: 1.0}, sampling: {keypoints: 24, pairs: 4}}]
sinkhorn_iterations: 5
loop: {precision: float32, validate_every: 0, device: cpu}
"""


@pytest.fixture
def recipe(cache, tmp_path) -> AblationRecipe:
    base = tmp_path / "base.yaml"
    base.write_text(BASE.replace("CACHE", str(cache)))
    file = tmp_path / "ablation.yaml"
    file.write_text(
        f"""
output: {tmp_path / "out"}
recipe: {base}
seeds: 1
pairs: 5
heldout: {{same: {cache}}}
variants: {{full: [], edges: [network.edges=3]}}
"""
    )
    return load(file, AblationRecipe)


def test_variants_are_trained_compared_and_not_trained_again(recipe, tmp_path):
    written = run_ablation(recipe)
    lines = written.read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["full", "edges"]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(rows) == 2
    assert all(0 < row["precision"] <= 100 for row in rows)
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
    weights = tmp_path / "out" / "runs" / "edges-0" / "weights.safetensors"
    assert load_superglue(weights).network.config.edges == 3
    before = weights.stat().st_mtime_ns
    assert run_ablation(recipe).read_text().splitlines() == lines
    assert weights.stat().st_mtime_ns == before


def test_the_table_has_the_mean_and_deviation_over_the_seeds():
    rows = [
        Row(variant="a", seed=s, heldout="h", precision=p, recall=50.0, milliseconds=1.0)
        for s, p in enumerate((40.0, 60.0))
    ]
    assert table(rows).splitlines()[2] == "| a | 2 | 50.0 ± 14.1 | 50.0 ± 0.0 | 49.5 ± 7.1 |"


def test_a_mistake_in_a_variant_shows_before_anything_is_trained(recipe, tmp_path):
    from dataclasses import replace

    wrong = replace(recipe, variants={"full": (), "typo": ("network.edge=3",)})
    with pytest.raises(ConfigError, match=r"unknown setting network\.edge"):
        run_ablation(wrong)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="needs variants"):
        replace(recipe, variants={})
