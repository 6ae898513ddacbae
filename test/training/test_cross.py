"""`train cross`: every set trains a network, every held-out set judges all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from superglue_ros.cli import main
from superglue_ros.errors import ConfigError
from superglue_ros.networks.weights import load_superglue
from superglue_ros.settings import load
from superglue_ros.training.ablation import Row
from superglue_ros.training.cross import CrossRecipe, as_ablation, cross_table
from superglue_ros.training.data.cache import write_shard

from .conftest import synthetic_shard
from .test_ablation import BASE


@pytest.fixture
def file(tmp_path):
    for seed, name in enumerate(("a", "b", "a_held", "b_held")):
        write_shard(synthetic_shard(seed), tmp_path / name / "0.safetensors", "kind", '"recipe"')
    base = tmp_path / "base.yaml"
    base.write_text(BASE.replace("CACHE", str(tmp_path / "a")))
    made = tmp_path / "cross.yaml"
    made.write_text(
        f"""
output: {tmp_path / "out"}
recipe: {base}
seeds: 1
pairs: 4
sets: {{a: {tmp_path / "a"}, b: {tmp_path / "b"}}}
heldout: {{a: {tmp_path / "a_held"}, b: {tmp_path / "b_held"}}}
"""
    )
    return made


def test_a_row_for_each_training_set_and_all_of_them(file, tmp_path, capsys):
    assert main(["train", "cross", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| trained on, tested on | a | b | others |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b", "all"]
    weights = [tmp_path / "out" / "runs" / f"{name}-0" / "weights.safetensors" for name in "ab"]
    first, second = (load_superglue(one).network.dustbin.item() for one in weights)
    assert first != second  # they saw different pairs
    changes = as_ablation(load(file, CrossRecipe)).variants["all"][0]
    assert f'"{tmp_path / "a"}": 1.0, "{tmp_path / "b"}": 1.0' in changes


def test_the_table_by_hand():
    rows = [
        Row(variant=v, seed=s, heldout=h, precision=p + 10 * s, recall=p + 10 * s, milliseconds=1.0)
        for v, h, p in (("a", "a", 80.0), ("a", "b", 50.0), ("b", "a", 40.0), ("b", "b", 70.0))
        for s in (0, 1)
    ]
    assert cross_table(rows).splitlines()[2:] == [
        "| a | 85.0 ± 7.1 | 55.0 ± 7.1 | 55.0 |",
        "| b | 45.0 ± 7.1 | 75.0 ± 7.1 | 45.0 |",
    ]


def test_names_that_differ_and_drawn_views_are_refused(file, tmp_path):
    recipe = load(file, CrossRecipe)
    with pytest.raises(ConfigError, match=r"sets \(a, b\) and heldout \(a\) must have the same"):
        replace(recipe, heldout={"a": "x"})
    drawn = tmp_path / "drawn.yaml"
    drawn.write_text("output: x\nstages: [{name: only, steps: 2, views: {corpus: c}}]\n")
    with pytest.raises(ConfigError, match="draw views: give one that reads caches"):
        as_ablation(replace(recipe, recipe=str(drawn)))
