"""What the launch files share: switches, inputs that may be named, and files that must be there."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument

from superglue_ros.errors import ConfigError

ON, OFF = ("true", "True"), ("false", "False")


def switch(name: str, default: str, description: str) -> DeclareLaunchArgument:
    """A launch argument of true or false, in either spelling; "" as default allows leaving it."""
    choices = [*ON, *OFF] if default else ["", *ON, *OFF]
    return DeclareLaunchArgument(
        name, default_value=default, choices=choices, description=description
    )


def viewer_arguments() -> list[DeclareLaunchArgument]:
    """The arguments ``viewer`` and ``viewer_file``."""
    return [
        DeclareLaunchArgument(
            "viewer",
            default_value="",
            choices=["", "rerun"],
            description="rerun: show images, matches, trajectory and timing (docs/viewer.md).",
        ),
        DeclareLaunchArgument(
            "viewer_file",
            default_value="",
            description="With viewer: write a Rerun recording (.rrd) instead of a window.",
        ),
    ]


def is_on(value: str) -> bool:
    """Whether a :func:`switch` was given as true."""
    return value in ON


def optional_input(value: str, name: str) -> tuple[bool | None, str]:
    """Whether to take an input, and its topic, from a launch argument.

    ``value`` is true, false, or the name of the topic, which also means yes; empty leaves it to
    the parameters: None. ``name`` is the node's own name of the topic.
    """
    if not value:
        return None, name
    if value in (*ON, *OFF):
        return is_on(value), name
    return True, value


def parameter_files(path: str) -> list[str]:
    """The parameter file as ``Node(parameters=...)`` takes it; none where ``path`` is empty.

    Raises :class:`ConfigError` where there is no such file: launch only warns, and the node would
    run with its defaults.
    """
    if path and not Path(path).is_file():
        raise ConfigError(f"params_file {path} does not exist")
    return [path] if path else []


def enclave(path: str) -> list[str]:
    """The words after ``--ros-args`` that put a node into an SROS2 enclave; none where empty."""
    return ["--enclave", path] if path else []


def is_installed(package: str) -> bool:
    """Whether the ROS package is in the sourced environment."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
