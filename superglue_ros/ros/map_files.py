"""The folder of saved maps, and the names that services may use in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from superglue_ros.errors import DataError
from superglue_ros.mapping.map_io import FILE_OF_A_FOLDER

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def map_folder(setting: str) -> Path:
    """The folder of the setting ``maps.folder``; empty = below the ROS home."""
    if setting:
        return Path(setting).expanduser()
    return Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser() / "maps" / "superglue_ros"


def map_file(folder: Path, name: str, camera_index: int | None = None) -> Path:
    """The file of a map; ``camera_index`` goes before the ending of its name.

    Anybody on the network may ask for any name, so it must not lead out of the folder. Raises
    :class:`DataError`.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name[:100]!r} is no name of a map: give a name of letters, digits, . _ and - "
            f"without a folder; all maps are in {folder} (parameter maps.folder)"
        )
    file = folder / name
    if camera_index is None:
        return file
    return file.with_name(f"{file.stem}.{camera_index}{file.suffix}")


def map_to_load(folder: Path, name: str, camera_index: int | None = None) -> Path:
    """The file of a map as :func:`map_file`, or that in a folder of ``superglue-ros reconstruct``.

    All cameras share the map of such a folder. Raises :class:`DataError`.
    """
    file, made = map_file(folder, name, camera_index), folder / name
    if not made.is_dir():
        return file
    if not (made / FILE_OF_A_FOLDER).exists():
        raise DataError(
            f"{made} has no {FILE_OF_A_FOLDER}: `superglue-ros reconstruct` writes it where images "
            f"come with poses, which give the map its metres. Reconstruct a sequence or bag with "
            f"poses, without --no-align and from images rather than matches"
        )
    return made / FILE_OF_A_FOLDER
