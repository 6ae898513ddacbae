"""An executable without torch goes over to the node's own environment, or says how to make it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What CMakeLists.txt writes into lib/superglue_ros, with a last line that shows where it ended up.
SCRIPT = """
import sys
from superglue_ros.ros.interpreter import enter_node_environment
enter_node_environment()
print(sys.prefix, sys.argv[1:])
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A Python without torch: that of the environment's base, without its packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [folder / "bare/bin/python3", folder / "script.py", "--ros-args"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_below_the_ros_home_is_found(bare: Path) -> None:
    venv = bare / "home/superglue_ros/venv"
    command = [sys.executable, "-m", "venv", "--without-pip", venv]
    subprocess.run(command, check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "torch.py").touch()
    result = run(bare, ROS_HOME=str(bare / "home"))
    assert result.stdout == f"{venv} ['--ros-args']\n", result.stderr


def test_without_torch_it_says_what_to_do(bare: Path) -> None:
    result = run(bare, ROS_HOME=str(bare / "nowhere"))
    assert result.returncode == 1
    assert "has no torch. Run scripts/setup_node" in result.stderr
    assert str(bare / "nowhere/superglue_ros/venv") in result.stderr


def test_another_python_can_be_named(bare: Path) -> None:
    given = run(bare, SUPERGLUE_ROS_PYTHON=sys.executable)
    assert given.stdout == f"{sys.prefix} ['--ros-args']\n", given.stderr
    missing = run(bare, SUPERGLUE_ROS_PYTHON="/nowhere/python3")
    assert missing.returncode == 1
    assert "SUPERGLUE_ROS_PYTHON is /nowhere/python3, which does not exist" in missing.stderr
