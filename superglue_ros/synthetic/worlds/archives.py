"""The files of a game: folders and ``.pk3`` archives, which are ZIP files, seen as one tree."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from superglue_ros.errors import DataError

log = logging.getLogger(__name__)

_PICTURES = (".tga", ".jpg", ".jpeg", ".png")  # in the order in which the engine looks


class GameFiles:
    """Files by their name in the game, without regard to case.

    A file of a later archive replaces that of an earlier one, as in the game, where archives are
    read in the order of their names. Raises :class:`DataError` where an archive cannot be read.
    """

    def __init__(self, archives: Iterable[Path]) -> None:
        self._where: dict[str, Callable[[], bytes]] = {}
        for path in sorted(archives, key=lambda path: path.name.lower()):
            if path.is_dir():
                for file in path.rglob("*"):
                    if file.is_file():
                        self._where[file.relative_to(path).as_posix().lower()] = file.read_bytes
                continue
            try:
                archive = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(
                    f"{path} is no archive of a game ({error}): fetch it again"
                ) from error
            for name in archive.namelist():
                self._where[name.lower()] = partial(archive.read, name)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._where

    def folders(self, folder: str, holding: str) -> list[str]:
        """Names of the folders directly in ``folder`` that have a file ``holding``, sorted."""
        paths = (name.split("/") for name in self._where if name.startswith(f"{folder}/"))
        return sorted(path[1] for path in paths if path[2:] == [holding])

    def names(self, folder: str, ending: str) -> list[str]:
        """Names of the files directly in ``folder`` that end with ``ending``, sorted."""
        return sorted(
            name
            for name in self._where
            if name.rpartition("/")[0] == folder and name.endswith(ending)
        )

    def read(self, name: str) -> bytes:
        """Content of a file. Raises :class:`DataError` where it is missing or damaged."""
        try:
            return self._where[name.lower()]()
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{name} cannot be read from its archive: {error}") from error

    def picture(self, name: str) -> str | None:
        """Name of the picture that a map calls ``name``, whatever its ending; None: there is none.

        Maps name a picture without ending, or with one of another format than what is there.
        """
        stem = name.lower().replace("\\", "/")
        head, dot, ending = stem.rpartition(".")
        if dot and f".{ending}" in _PICTURES:
            stem = head
        return next((stem + end for end in _PICTURES if stem + end in self._where), None)

    def pixels(self, name: str) -> NDArray[np.uint8] | None:
        """Grey value and opacity (H, W, 2) of a picture; None, with a warning, if it is damaged."""
        try:
            with Image.open(io.BytesIO(self.read(name))) as picture:
                colours = picture.convert("RGBA")
        except (DataError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            log.warning("%s is no picture that can be read: %s", name, error)
            return None
        return np.dstack([np.asarray(colours.convert("L")), np.asarray(colours)[..., 3]])


def games_in(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Archives and folders of every game below ``folders``; those at the same place are one game.

    Packages of one game unpack into one folder, ``usr/share/games/GAME/...``; the key is that
    place. Links are left out: they name an archive a second time. A folder is a game where it has
    tracks of SuperTuxKart, ``tracks/NAME/scene.xml``.
    """
    games: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.pk3")):
            if path.is_file() and not path.is_symlink():
                games.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
        for data in sorted({path.parents[2] for path in folder.rglob("tracks/*/scene.xml")}):
            games.setdefault(data.relative_to(folder).as_posix(), []).append(data)
    return games
