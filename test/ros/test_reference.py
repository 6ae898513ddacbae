"""What is written about the node agrees with its code."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from superglue_ros.config import Config
from superglue_ros.msg import MatcherStatus, Matches, RelativePose
from superglue_ros.registry import FRONT_ENDS, MATCHERS
from superglue_ros.ros import reference
from superglue_ros.ros.inputs import input_names
from superglue_ros.ros.node_config import InputsConfig, NodeConfig
from superglue_ros.ros.outputs import TOPICS
from superglue_ros.ros.parameters import settings_from_flat
from superglue_ros.settings import leaves

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "run: scripts/run python -m superglue_ros.ros.reference"


def flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        name = prefix + key
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def test_the_configuration_file_is_current() -> None:
    assert (ROOT / "config/matcher.yaml").read_text(encoding="utf-8") == reference.yaml_text(), (
        AGAIN
    )


def test_the_configuration_file_holds_every_default_and_nothing_else() -> None:
    document = yaml.safe_load((ROOT / "config/matcher.yaml").read_text(encoding="utf-8"))
    values = flat(document["/**"]["ros__parameters"])
    expected = {name: item.default for name, item, _ in [*leaves(NodeConfig), *leaves(Config)]}
    assert values == expected
    settings = settings_from_flat(values)
    assert (settings.core, settings.node) == (Config(), NodeConfig())


def test_every_line_of_the_configuration_file_is_commented() -> None:
    lines = (ROOT / "config/matcher.yaml").read_text(encoding="utf-8").splitlines()
    settings = [
        (before, line)
        for before, line in pairwise(lines)
        if ":" in line and not line.strip().startswith("#") and not line.rstrip().endswith(":")
    ]
    assert len(settings) > 40
    for before, line in settings:
        assert before.strip().startswith("#"), line
    assert max(map(len, lines)) <= 100


def test_the_tables_in_the_documentation_are_current() -> None:
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8")
    assert page == reference.with_tables(page), AGAIN


def test_every_choice_says_which_settings_it_reads() -> None:
    table = reference.choice_table()
    for section, registry in (("front_end", FRONT_ENDS), ("matcher", MATCHERS)):
        known = {name for name, _, _ in leaves(Config)}
        for name, choice in registry.items():
            assert f"| `{section}.name` | `{name}` | {choice.description} |" in table
            assert {f"{section}.{leaf}" for leaf in choice.settings} <= known
    ratio = next(line for line in table.splitlines() if "`matcher.name` | `ratio`" in line)
    assert ratio.endswith("| `ratio` |")


def test_the_documentation_names_every_topic() -> None:
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8")
    for topic in [*TOPICS, "image", "image/compressed", "camera_info", "keypoints", "depth"]:
        assert f"| `{topic}` |" in page
    for config in (InputsConfig(), InputsConfig(stereo=True)):
        for name in input_names(NodeConfig(inputs=config)):
            assert f"`{name}`" in page


@pytest.mark.parametrize("message", [Matches, RelativePose])
def test_the_documentation_explains_every_status(message: type) -> None:
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8")
    names = [name for name in vars(type(message)) if name.isupper() and not name.startswith("_")]
    assert "ERROR" in names or "LOST" in names
    for name in names:
        assert re.search(rf"\b{name}\b", page), name


def test_every_count_of_the_status_is_in_the_documentation() -> None:
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8")
    for field in MatcherStatus.get_fields_and_field_types():
        if field in (
            "received", "matched", "dropped", "refused", "unsynchronised", "missing", "masked",
            "resets",
        ):  # fmt: skip
            assert field in page
