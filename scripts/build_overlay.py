#!/usr/bin/env python3
"""Build the ROS package into ``install/`` with colcon, if anything it is built from changed.

Runs inside the environment of ``scripts/run``; beside a ROS distribution, the folders end in its
name. The install is one of symbolic links, so the
Python code, launch and configuration files in it are the working tree's; only messages,
executables and new or removed files need a build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stamps import ROOT, fingerprint, is_current, one_at_a_time

SUFFIX = os.environ["SUPERGLUE_ROS_SUFFIX"]
BUILD, INSTALL, LOG = (ROOT / f"{name}{SUFFIX}" for name in ("build", "install", "log"))
STAMP = INSTALL / "superglue_ros.stamp"
CONTENTS = ("CMakeLists.txt", "package.xml", "setup.cfg", "msg/*.msg", "srv/*.srv")
LINKED = ("superglue_ros", "launch", "config", "rviz")


def environment() -> str:
    """Return what tells one ROS environment from another: its prefixes, less our own overlay."""
    prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    return repr([sys.prefix, *(p for p in prefixes if not p.startswith(str(INSTALL)))])


def linked_files() -> list[str]:
    """Return the names of all files that the install links to."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in LINKED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def build() -> None:
    """Run colcon; its output is shown only if it fails."""
    print(f"Building the messages into {INSTALL.name}/ ...", flush=True)
    result = subprocess.run(
        [
            *("colcon", "--log-base", LOG, "build", "--symlink-install"),
            *("--build-base", BUILD, "--install-base", INSTALL),
            *("--paths", ".", "--event-handlers", "console_direct+", "status-", "--cmake-args"),
            *(
                f"-DPython3_EXECUTABLE={sys.executable}",
                "-DBUILD_TESTING=OFF",
                "--no-warn-unused-cli",
            ),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"{result.stdout}\nbuild_overlay: colcon failed (output above).")


def main() -> None:
    """Build unless the stamp is current; from scratch if the ROS environment is another one."""
    with one_at_a_time():
        place = environment()
        sources = [path for pattern in CONTENTS for path in ROOT.glob(pattern)]
        current = f"{place}\n{fingerprint([Path(__file__), *sources], linked_files())}"
        if is_current(STAMP, current):
            return
        if STAMP.exists() and STAMP.read_text().split("\n")[0] != place:
            shutil.rmtree(BUILD, ignore_errors=True)
            shutil.rmtree(INSTALL, ignore_errors=True)
        build()
        STAMP.write_text(current)


if __name__ == "__main__":
    main()
