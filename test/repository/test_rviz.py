"""RViz shows what launch/slam_demo.launch.py publishes: topics, message types, fixed frame."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What the displays of rviz_default_plugins subscribe to.
MESSAGE_OF = {
    "rviz_default_plugins/Path": "Path",
    "rviz_default_plugins/Odometry": "Odometry",
    "rviz_default_plugins/PointCloud2": "PointCloud2",
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
