"""A test that hangs with Python's lock held fails by its name, and the others go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="without it the process of the tests ends with the hung one")

SETTINGS = Path(__file__).resolve().parents[2] / "pyproject.toml"
HANGS = """
import ctypes
from pathlib import Path

def test_hangs_once():
    once = Path(__file__).with_name("once")
    if not once.exists():
        once.touch()
        ctypes.PyDLL(None).pause()

def test_after():
    pass
"""


def test_a_hung_test_fails_by_name(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        assert request.config.getini("faulthandler_exit_on_timeout")
    except ValueError:
        pytest.skip("this pytest does not end a process that hangs")
    (tmp_path / "test_hung.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-c", str(SETTINGS), "--rootdir", str(tmp_path)]
    command += ["-n", "1", "--dist", "loadfile", "-o", "faulthandler_timeout=3", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "FAILED test_hung.py::test_hangs_once" in done.stdout, done
    assert "1 failed, 2 passed" in done.stdout  # the new worker takes the whole file
    assert "in test_hangs_once" in done.stderr
