"""What may import what: the order of the rooms, ROS only in ``ros/``; no paths of any machine."""

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
    "tf2_ros",
}
GENERATED = {"superglue_ros.msg", "superglue_ros.srv"}
ALL = sorted(PACKAGE.rglob("*.py"))
CORE = [file for file in ALL if PACKAGE / "ros" not in file.parents]


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


# Every room, and every module outside of them, from the ground up: each imports only from above
# its own line. Data flows one way.
ORDER = [
    *("errors", "files", "registry", "settings", "config"),
    *("geometry", "types"),
    *("data", "synthetic"),
    *("networks", "engines", "frontends", "matchers"),
    *("mapping", "stage_clock", "rig", "pipeline"),
    *("drawing", "back_end", "live", "ros"),
    *("training", "evaluation"),
    *("image_pairs", "many_pairs", "reconstruction", "localization"),
    *("demo", "viewer", "bench", "cli"),
]


def room(name):
    """The folder or module directly below the package that a full module name leads to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "superglue_ros" else None


@pytest.mark.parametrize("file", ALL, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_lead_from_a_room_to_those_below_it(file):
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        return
    rooms = {room(name) for name in imported(file.read_text())} & set(ORDER)
    assert own in ORDER, f"give {own} its place in the order of the rooms"
    assert not [other for other in rooms if ORDER.index(other) > ORDER.index(own)]


def test_there_are_few_modules_outside_of_the_rooms():
    modules = [file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__"]
    assert len(modules) <= 10, modules


NETWORKS = sorted((PACKAGE / "networks").glob("*.py"))
WITH_FILES = {"weights.py"}
NOT_IN_NETWORKS = {
    "cv2", "json", "os", "pathlib", "safetensors", "yaml",
    "superglue_ros.config", "superglue_ros.geometry", "superglue_ros.settings",
}  # fmt: skip


@pytest.mark.parametrize(
    "file", [file for file in NETWORKS if file.name not in WITH_FILES], ids=lambda file: file.name
)
def test_network_files_do_no_files_settings_or_geometry(file):
    names = set(imported(file.read_text()))
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
