"""RViz and Foxglove show what launch/slam_demo.launch.py publishes: topics, types, fixed frame."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What the displays of rviz_default_plugins subscribe to.
MESSAGE_OF = {
    "rviz_default_plugins/Path": "Path",
    "rviz_default_plugins/Odometry": "Odometry",
    "rviz_default_plugins/PointCloud2": "PointCloud2",
    "rviz_default_plugins/PoseWithCovariance": "PoseWithCovarianceStamped",
    "rviz_default_plugins/Image": "Image",
}


def published(*files: str) -> dict[str, str]:
    """Message class of every topic that a node of ``superglue_ros/ros`` creates a publisher for."""
    topics = {}
    for name in files:
        tree = ast.parse((ROOT / "superglue_ros" / "ros" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("create_publisher", "create_lifecycle_publisher")
                and isinstance(node.args[0], ast.Name)
                and isinstance(node.args[1], ast.Constant)
            ):
                topics[node.args[1].value] = node.args[0].id
    return topics


@pytest.fixture(scope="module")
def manager() -> dict:
    text = (ROOT / "rviz" / "slam.rviz").read_text(encoding="utf-8")
    return yaml.safe_load(text)["Visualization Manager"]


def test_every_display_has_a_publisher_of_its_type(manager):
    back_end = published("bundle_adjuster.py")
    assert back_end == {"~/path": "Path", "~/odometry": "Odometry", "~/landmarks": "PointCloud2"}
    topics = {name.replace("~", "bundle_adjuster"): kind for name, kind in back_end.items()}
    topics["matcher/matches_image"] = "Image"
    topics["relocalised_pose"] = "PoseWithCovarianceStamped"
    shown = {
        display["Topic"]["Value"]: MESSAGE_OF[display["Class"]]
        for display in manager["Displays"]
        if "Topic" in display
    }
    assert shown == topics


def test_names_are_relative_and_qos_fits(manager):
    for display in manager["Displays"]:
        topic = display.get("Topic")
        if topic is not None:
            assert not topic["Value"].startswith("/"), "a namespace would not reach it"
            assert topic["Reliability Policy"] in ("Reliable", "Best Effort")
            assert topic["Durability Policy"] == "Volatile"


def test_the_fixed_frame_is_the_world_of_the_back_end(manager):
    source = (ROOT / "superglue_ros" / "ros" / "bundle_adjuster.py").read_text(encoding="utf-8")
    assert (
        f'declare_parameter("world_frame", "{manager["Global Options"]["Fixed Frame"]}")' in source
    )


@pytest.fixture(scope="module")
def foxglove() -> dict:
    return json.loads((ROOT / "config" / "foxglove_layout.json").read_text(encoding="utf-8"))


def texts(tree: object) -> list[str]:
    """All texts in a JSON tree, and the names of what it holds."""
    if isinstance(tree, dict):
        return [one for key, value in tree.items() for one in (key, *texts(value))]
    if isinstance(tree, list):
        return [one for value in tree for one in texts(value)]
    return [tree] if isinstance(tree, str) else []


def test_foxglove_names_topics_and_fields_that_are_there(foxglove):
    """A topic, or with fields and functions topic.field.@function."""
    outputs = (ROOT / "superglue_ros" / "ros" / "outputs.py").read_text(encoding="utf-8")
    listed = re.findall(r'^    "([~/\w]+)": (\w+),$', outputs, re.MULTILINE)
    kinds = {f"/{name}".replace("/~/", "/matcher/"): kind for name, kind in listed}
    kinds |= {
        name.replace("~", "/bundle_adjuster"): kind
        for name, kind in published("bundle_adjuster.py").items()
    }
    kinds["/diagnostics"] = "DiagnosticArray"
    paths = [text for text in texts(foxglove["configById"]) if text.startswith("/")]
    assert {path.split(".")[0] for path in paths} == kinds.keys() - {
        "/matches", "/matcher/features"
    }  # fmt: skip
    fields = [path.split(".")[:2] for path in paths if "." in path]
    assert len(fields) == 5
    for topic, field in fields:
        message = (ROOT / "msg" / f"{kinds[topic]}.msg").read_text(encoding="utf-8")
        assert re.search(rf"^[\w/]+ {field}\b", message, re.MULTILINE), f"{topic} has no {field}"


def test_foxglove_shows_every_panel_once(foxglove):
    def panels(place: object) -> list[str]:
        if isinstance(place, str):
            return [place]
        return panels(place["first"]) + panels(place["second"])

    assert sorted(panels(foxglove["layout"])) == sorted(foxglove["configById"])
    assert foxglove["configById"]["3D!map"]["followTf"] == "map"
