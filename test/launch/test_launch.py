"""Runs the launch_testing tests beside this file, where ``launch_testing`` is installed.

By its own runner and not its pytest plugin: the plugin imports every test of the suite a second
time, under bare names, and breaks with new versions of pytest.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_testing", reason="launch_testing is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

TESTS = sorted(Path(__file__).parent.glob("*.launch.py"))


def test_there_are_launch_tests():
    assert TESTS


@pytest.mark.ros
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_launch(file):
    result = subprocess.run(
        [sys.executable, "-m", "launch_testing.launch_test", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout
