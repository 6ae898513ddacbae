"""Settings: typed trees from YAML, dotted names and command lines."""

import argparse

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError
from superglue_ros.registry import MATCHERS
from superglue_ros.settings import build, from_flat, load, override, shorthands
from superglue_ros.training.recipes import (
    CacheRecipe,
    SuperGlueRecipe,
)

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
            r"stages\.0\.steps must be int",
        ),
        ({**MINIMAL, "loss": {"form": "median"}}, r"loss\.form must be one of sum, mean, balanced"),
        ({**MINIMAL, "optimiser": {"clip": -1.0}}, r"clip must be at least 0\.0, not -1\.0"),
        ({**MINIMAL, "optimiser": {"clip": float("nan")}}, r"clip must be at least 0\.0, not nan"),
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


def read(tmp_path, text: str | bytes):
    path = tmp_path / "some.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, Config)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read settings .*none\.yaml"):
        load(tmp_path / "none.yaml", Config)
    with pytest.raises(ConfigError, match=r"some\.yaml: matcher\.ratio must be from 0\.0 to 1\.0"):
        read(tmp_path, "matcher: {ratio: 7}")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot read settings"),
        (b"\xff\xfe\x00", "cannot read settings"),
        (BOMB, "too many values"),
        ("robot: &r [*r]", "too many values, or nested too deeply"),
        ("[" * 5000, "nested more than"),
        ("a: " * 200 + "1", "cannot read settings"),
        ("robot: x\nrobot: y", "robot is given twice"),
        ("geometry: {seed: " + "9" * 5000 + "}", "cannot read settings"),
        ("geometry: {threshold_px: " + "9" * 400 + "}", r"geometry\.threshold_px is too large"),
        ("geometry: {threshold_px: .inf}", r"geometry\.threshold_px must be from 0\.05 to 20"),
        ("geometry: {threshold_px: 1e999}", r"geometry\.threshold_px must be from 0\.05 to 20"),
        ("device: 2024-99-99", "cannot read settings"),
        ("5: 6", "unknown setting 5"),
        ("? [a, b]\n: 1", "cannot read settings"),
        ("robot: " + "x" * 2_000_000, "more than the limit of 1048576"),
        ("- a\n- b", "must hold a mapping"),
        ("!!python/object/apply:os.getcwd []", "cannot read settings"),
    ],
)
def test_hostile_files_are_refused_with_few_words(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 2000


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!?|>'\"#,.% \n\t0123456789e+<="), max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gives_settings_or_an_error_that_names_the_file(tmp_path, text):
    said = "some.yaml"
    try:
        read(tmp_path, text)
    except ConfigError as error:
        said = str(error)
    assert "some.yaml" in said


def test_merged_anchors_and_numbers_without_a_point(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("front_end: &f {threshold: 1e-3, border: 2}\n")
    assert load(path, Config).front_end.threshold == 1e-3
    path.write_text(
        "output: o\nstages:\n- &s {name: a, steps: 1, caches: {c: 1}}\n- {<<: *s, name: b}\n"
    )
    assert [stage.name for stage in load(path, SuperGlueRecipe).stages] == ["a", "b"]


def test_single_settings_are_overridden_from_the_command_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    words = ["stages.0.steps=7", "loss.form=mean", "network.keypoint_encoder=[4, 8]", "output=p"]
    recipe = load(path, SuperGlueRecipe, words)
    assert recipe.stages[0].steps == 7
    assert recipe.loss.form == "mean"
    assert recipe.network.keypoint_encoder == (4, 8)
    assert recipe.output == "p"
    assert MINIMAL["stages"][0]["steps"] == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("matcher.name", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("matcher.nme=ratio", r"unknown setting matcher\.nme"),
        ("matcher.name=rato", r"matcher\.name must be one of superglue"),
        ("matcher.ratio=high", r"matcher\.ratio must be float, not 'high'"),
        ("matcher.ratio=[", r"--set matcher\.ratio"),
        ("device.index=0", r"device\.index: device is a single value"),
        ("list.5=1", r"list\.5: '5' is no place in a list of 2 entries"),
    ],
)
def test_overrides_that_cannot_be_are_named(word, message):
    values = {"device": "cpu", "list": [1, 2]}
    with pytest.raises(ConfigError, match=message):
        build(Config, {k: v for k, v in override(values, [word]).items() if k != "list"})


def test_options_are_short_for_settings():
    given_options = argparse.Namespace(matcher="ratio", ratio=0.7, device=None, path="a: [b")
    leaf_of = {
        "matcher": "matcher.name",
        "ratio": "matcher.ratio",
        "device": "device",
        "path": "robot",
    }
    words = shorthands(given_options, leaf_of)
    config = build(Config, override({"device": "cuda"}, words))
    assert (config.matcher.name, config.matcher.ratio) == ("ratio", 0.7)
    assert (config.device, config.robot) == ("cuda", "a: [b")


def test_choices_of_a_registry_count_from_their_registration_on():
    with pytest.raises(ConfigError, match="not 'toy'"):
        from_flat(Config, {"matcher.name": "toy"})
    MATCHERS.register("toy", lambda config, device: None, "Toy", "For this test.")
    try:
        assert from_flat(Config, {"matcher.name": "toy"}).matcher.name == "toy"
    finally:
        MATCHERS.unregister("toy")


MERGES = "m0: &m0 {x0: 1}\n" + "".join(
    f"m{i}: &m{i}\n  <<: [{', '.join([f'*m{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [MERGES, "device: 0x" + "f" * 100_000, "device: 0b" + "1" * 100_000,
     "device: " + ":".join(["59"] * 20_000), "device: " + ":".join(["59"] * 20_000) + ".5",
     'device: "\\UFFFFFFFF"', "{a: " * 100_000, b"a: \xff\xfe"],
    ids=["merges", "hex", "binary", "sexagesimal", "sexagesimal-float", "escape", "deep", "utf-8"],
)  # fmt: skip
def test_yaml_that_would_take_all_time_or_raise_any_error(tmp_path, text) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"x\.yaml") as caught:
        load(file, Config)
    assert len(str(caught.value)) < 1000
