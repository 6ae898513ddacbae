"""The Python that the installed executables run in.

ROS runs its nodes with the system's Python, which has no torch; and on Debian and Ubuntu pip may
not install anything there (PEP 668). ``scripts/setup_node`` makes a virtual environment that sees
the system's packages and has what they lack. The executables go over to it here, before anything
large is imported, so that ``ros2 launch`` and ``ros2 run`` need no option and no activation.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "SUPERGLUE_ROS_PYTHON"
"""Environment variable: another Python to run in."""


def node_python() -> Path:
    """The Python to run in: that of the variable, or of the environment that the script makes."""
    given = os.environ.get(VARIABLE)
    home = Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser()
    return Path(given) if given else home / "superglue_ros" / "venv" / "bin" / "python3"


def enter_node_environment() -> None:
    """Go on in :func:`node_python` if it was asked for, or if this Python has no torch.

    Replaces the process by one with the same arguments; returns where there is nothing to do. Ends
    with a message that says what to do where there is no torch anywhere.
    """
    python = node_python()
    here = python.parent.parent == Path(sys.prefix)
    lacking = find_spec("torch") is None
    if VARIABLE not in os.environ and not lacking:
        return
    if not here and python.is_file():
        os.execv(python, [str(python), *sys.argv])
    if not python.is_file() and VARIABLE in os.environ:
        sys.exit(f"{sys.argv[0]}: {VARIABLE} is {python}, which does not exist")
    if lacking:
        sys.exit(
            f"{sys.argv[0]}: {sys.executable} has no torch. Run scripts/setup_node of the "
            f"package's source once: it makes {node_python().parent.parent}, which is found by "
            f"itself; or name a Python that has torch in {VARIABLE}"
        )
