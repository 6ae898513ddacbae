"""Runs the launch_testing tests beside this file, where ``launch_testing`` is installed.

By its own runner and not its pytest plugin: the plugin imports every test of the suite a second
time, under bare names, and breaks with new versions of pytest.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from superglue_ros.errors import ConfigError

pytest.importorskip("launch_testing", reason="launch_testing is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

from superglue_ros.ros import launching

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
        # A domain of its own: the matcher of other tests has the same name.
        env={**os.environ, "ROS_DOMAIN_ID": str(random.SystemRandom().randint(10, 210))},
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", (None, "depth")),
        ("true", (True, "depth")),
        ("True", (True, "depth")),
        ("False", (False, "depth")),
        ("/camera/depth", (True, "/camera/depth")),
    ],
)
def test_an_input_is_a_switch_or_a_topic(value, expected):
    assert launching.optional_input(value, "depth") == expected


def test_a_missing_file_of_parameters_is_an_error(tmp_path):
    assert launching.parameter_files("") == []
    present = tmp_path / "present.yaml"
    present.touch()
    assert launching.parameter_files(str(present)) == [str(present)]
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        launching.parameter_files("nowhere.yaml")


def test_what_is_installed():
    assert launching.is_installed("superglue_ros")
    assert not launching.is_installed("no_such_package")
