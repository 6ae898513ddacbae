from pathlib import Path

import pytest
import yaml

from superglue_ros.errors import ConfigError
from superglue_ros.training.data.detector_labels import LabelRecipe
from superglue_ros.training.recipes import (
    CacheRecipe,
    EndToEndRecipe,
    SuperGlueRecipe,
    SuperPointRecipe,
)
from superglue_ros.training.settings import build, load

RECIPES = Path(__file__).parents[2] / "config" / "train"


def recipe_type(values: dict) -> type:
    if "teacher" in values:
        return LabelRecipe
    if "stages" in values:
        return SuperGlueRecipe
    if "views" in values and "superglue" in values:
        return EndToEndRecipe
    return CacheRecipe if "source" in values else SuperPointRecipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_in_the_repository_is_valid(path):
    load(path, recipe_type(yaml.safe_load(path.read_text())))


MINIMAL = {"output": "o", "stages": [{"name": "a", "steps": 1, "caches": {"c": 1}}]}


def test_nested_lists_mappings_and_defaults():
    recipe = build(SuperGlueRecipe, {**MINIMAL, "network": {"keypoint_encoder": [8, 16]}})
    assert recipe.network.keypoint_encoder == (8, 16)
    assert recipe.stages[0].caches == {"c": 1.0}
    assert recipe.optimiser.learning_rate == 1e-4


@pytest.mark.parametrize(
    "values, message",
    [
        ({"stage": []}, r"unknown setting stage: known are"),
        ({"output": "o"}, r"stages is missing"),
        (
            {**MINIMAL, "stages": [{"name": "a", "steps": "many", "caches": {}}]},
            r"stages\[0\]\.steps must be int",
        ),
        ({**MINIMAL, "loss": {"form": "median"}}, r"loss\.form must be one of sum, mean, balanced"),
        ({**MINIMAL, "optimiser": {"clip": -1.0}}, r"optimiser\.clip = -1\.0 is outside"),
        ({**MINIMAL, "optimiser": {"clip": float("nan")}}, r"optimiser\.clip = nan is outside"),
        ({**MINIMAL, "stages": 3}, r"stages must be a list"),
        ({**MINIMAL, "network": [1]}, r"network must be a mapping"),
    ],
)  # fmt: skip
def test_bad_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build(SuperGlueRecipe, values)


def test_a_tuple_of_another_length_is_refused():
    with pytest.raises(ConfigError, match=r"homography\.scale must have 2 entries, not 3"):
        build(CacheRecipe, {"homography": {"scale": [1, 2, 3]}})


def test_impossible_homographies_are_refused_by_their_place_in_the_recipe():
    message = r"homography\.scale must be two positive numbers, low before high, not 2\.0 1\.0"
    with pytest.raises(ConfigError, match=message):
        build(CacheRecipe, {"homography": {"scale": [2, 1]}})


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read recipe .*none\.yaml"):
        load(tmp_path / "none.yaml", CacheRecipe)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"cannot read recipe .*bad\.yaml"):
        load(tmp_path / "bad.yaml", CacheRecipe)
