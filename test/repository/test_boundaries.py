"""What may import what: ROS only under ``superglue_ros/ros``; no paths of any machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "superglue_ros"
ROS = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "message_filters",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}
GENERATED = {"superglue_ros.msg", "superglue_ros.srv"}
CORE = sorted(file for file in PACKAGE.rglob("*.py") if PACKAGE / "ros" not in file.parents)


def imported(source):
    """Yield the full name of every module that the source imports, however deep inside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of_ros(name):
    parts = name.split(".")
    return parts[0] in ROS or ".".join(parts[:2]) in GENERATED


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rclpy.node", True),
        ("def f():\n    from sensor_msgs.msg import Image", True),
        ("from superglue_ros import msg", True),
        ("from superglue_ros.msg import Matches", True),
        ("from superglue_ros import matching", False),
        ("import rosbags", False),
    ],
)
def test_the_check_sees_ros_imports(source, expected):
    assert any(map(of_ros, imported(source))) is expected


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_the_core_imports_no_ros(file):
    assert not [name for name in imported(file.read_text()) if of_ros(name)]


def test_the_core_runs_where_ros_cannot_be_imported():
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ROS!r} or name in {GENERATED!r}:
            raise ImportError("no ROS here: " + name)
sys.meta_path.insert(0, Refuse())
import superglue_ros.pipeline, superglue_ros.cli, superglue_ros.evaluation.metrics
assert "rclpy" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


NETWORKS = ("superglue.py", "superpoint.py", "sinkhorn.py")
NOT_IN_NETWORKS = {"cv2", "json", "os", "pathlib", "safetensors", "superglue_ros.geometry", "yaml"}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_files_do_no_files_settings_or_geometry(name):
    names = set(imported((PACKAGE / name).read_text()))
    heads = {part for full in names for part in (full.split(".")[0], ".".join(full.split(".")[:2]))}
    assert not heads & NOT_IN_NETWORKS


def tracked_text_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        file = ROOT / name
        if name and file.is_file() and b"\0" not in (content := file.read_bytes()):
            yield name, content.decode("utf-8", errors="replace")


# Home and work folders; /usr, /opt/ros, /tmp and the like mean the same everywhere.
MACHINE_PATH = re.compile(r"(?<![\w.:/~}])/(?:home|root|Users|mnt|work|workspace)/[\w.-]+")


def test_no_file_names_a_folder_of_some_machine():
    found = [
        f"{name}:{number}: {match[0]}"
        for name, text in tracked_text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := MACHINE_PATH.search(line))
    ]
    assert not found


def test_no_large_files():
    sizes = {
        name: (ROOT / name).stat().st_size
        for name in subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.splitlines()
        if (ROOT / name).is_file()
    }
    large = {name for name, size in sizes.items() if size > 2_000_000}
    assert not {name for name in large if not name.startswith("superglue_ros/weights/")}
