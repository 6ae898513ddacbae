"""Child processes: output, failure, and the end of every one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from superglue_ros.live.processes import Child, Children, ProcessError

TALK = "import sys, time; print('ready', flush=True); print('why', file=sys.stderr); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('on', flush=True)\n"
    "time.sleep(60)"
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules written here can be run with ``python -m``."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, text in (
        ("talk", TALK),
        ("stubborn", STUBBORN),
        ("fail", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def wait_for(child: Child, line: str) -> None:
    end = time.monotonic() + 30
    while child.line(timeout=0.1) != line:
        assert time.monotonic() < end


def test_lines_and_log(module: Path) -> None:
    with Children(module, dict(os.environ)) as children:
        child = children.start("talker", "talk")
        wait_for(child, "ready")
        child.check_running()
        assert child.line(timeout=0.01) is None
        assert child.exit_code is None
    assert child.exit_code not in (None, 0)
    log = (module / "talker.log").read_text()
    assert "ready" in log
    assert "why" in log


def test_failures_show_the_end_of_the_log(module: Path) -> None:
    with Children(module, dict(os.environ)) as children:
        child = children.start("thing", "fail")
        while child.exit_code is None:
            time.sleep(0.01)
        with pytest.raises(ProcessError, match=r"the thing ended with exit code 3[^~]*it broke"):
            child.check()


def test_a_stubborn_child_is_ended(module: Path) -> None:
    child = Child("stubborn", ["stubborn"], module / "s.log", dict(os.environ))
    wait_for(child, "on")
    assert child.stop(patience=0.2) == -signal.SIGTERM


def test_all_are_stopped_when_the_block_fails(module: Path) -> None:
    started: list[Child] = []

    def fail() -> None:
        with Children(module, dict(os.environ)) as children:
            started.extend(children.start(name, "talk") for name in ("a", "b"))
            for child in started:
                wait_for(child, "ready")
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert all(child.exit_code is not None for child in started)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_children_do_not_outlive_a_killed_parent(module: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, time\n"
            "from pathlib import Path\n"
            "from superglue_ros.live.processes import Child\n"
            f"log = Path({str(module / 't.log')!r})\n"
            "child = Child('talker', ['talk'], log, dict(os.environ))\n"
            "while child.line(1.0) != 'ready': pass\n"
            "print(child._process.pid, flush=True)\n"
            "time.sleep(60)",
        ],
        env={**os.environ, "PYTHONPATH": f"{module}:{Path(__file__).parents[2]}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
