"""Game worlds of a corpus: maps and tracks of packages, or of the user, as compact files.

``worlds/worlds.jsonl`` has one line per world, beside the files of
:mod:`superglue_ros.synthetic.worlds.storage`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.archives import GameFiles, games_in
from superglue_ros.synthetic.worlds.storage import write_world
from superglue_ros.synthetic.worlds.tracks import read_track, track_names
from superglue_ros.synthetic.worlds.world import World, read_shaders, read_world
from superglue_ros.training.data.corpus import WORLDS, Source, read_list, split_of
from superglue_ros.training.data.debian import licence_names

log = logging.getLogger(__name__)

FOLDER = "worlds"
MANIFEST = "worlds.jsonl"

_PLACE = "usr/share/games/"  # of games in Debian packages


@dataclass(frozen=True)
class CorpusWorld:
    """One line of the manifest. ``path`` is absolute or relative to the manifest's folder."""

    path: str
    sha256: str
    source: str
    licence: str
    split: str
    triangles: int
    textures: int
    missing_textures: int


def collect_worlds(sources: Sequence[Source], folder: Path) -> list[CorpusWorld]:
    """Write the maps and tracks of those ``sources`` that are games to ``folder``.

    Sources of one game see each other's files. What cannot be read is left out, and textures
    that are missing are grey; both are logged. Empty without such sources; raises
    :class:`DataError` where there are some and they have no world, or none that can be read.
    """
    sources = [source for source in sources if source.kind == WORLDS]
    if not sources:
        return []
    games = games_in([source.folder for source in sources])
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    worlds, refused = [], 0
    for place, archives in games.items():
        files = GameFiles(archives)
        owners = [s for s in sources if any(s.folder in (path, *path.parents) for path in archives)]
        about = CorpusWorld(
            path="",
            sha256="",
            source=", ".join(source.name for source in owners),
            licence="; ".join(dict.fromkeys(source.licence for source in owners)),
            split="",
            triangles=0,
            textures=0,
            missing_textures=0,
        )
        for world in _convert(files, _slug(place), about, owners, target):
            if world is None:
                refused += 1
            else:
                worlds.append(world)
    if not worlds:
        names = ", ".join(source.name for source in sources)
        raise DataError(
            f"no map could be read of {names}, and {refused} could not: see the warnings above, "
            f"or give folders with .pk3 archives or tracks"
        )
    lines = [json.dumps(asdict(world), ensure_ascii=False) for world in worlds]
    (target / MANIFEST).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return worlds


def read_worlds(folder: str | Path, split: str = "") -> list[CorpusWorld]:
    """The worlds of the corpus in ``folder``; ``split`` is ``train``, ``test``, or empty for both.

    Paths are absolute. Raises :class:`DataError` where there are none.
    """
    file = Path(folder) / FOLDER / MANIFEST
    try:
        listed = read_list(file, CorpusWorld, "world")
    except OSError as error:
        raise DataError(
            f"the corpus {folder} has no worlds ({file}: {error.strerror}): collect them with "
            f"'superglue-ros train corpus', from packages of the kind worlds"
        ) from error
    worlds = [replace(world, path=str(file.parent / world.path)) for world in listed]
    chosen = [world for world in worlds if split in ("", world.split)]
    if not chosen:
        raise DataError(f"{file} has no world of the split {split!r}: collect more games")
    return chosen


def _readers(files: GameFiles) -> Iterator[tuple[str, str, Callable[[], World]]]:
    """Of every world of a game its name, the file that stands for it, and what reads it."""
    shaders = read_shaders(files)
    for path in files.names("maps", ".bsp"):
        name = path.removeprefix("maps/")[:-4]
        yield name, path, partial(read_world, files, shaders, name)
    for name in track_names(files):
        yield name, f"tracks/{name}/scene.xml", partial(read_track, files, name)


def _convert(
    files: GameFiles, game: str, about: CorpusWorld, owners: Sequence[Source], folder: Path
) -> Iterator[CorpusWorld | None]:
    """The worlds of a game, written to ``folder``; None for one that cannot be read."""
    listed = list(_readers(files))
    for name, file, read in track(listed, f"worlds of {game}", console=Console(stderr=True)):
        path = folder / f"{game}_{name}.npz"
        try:
            world = read()
            write_world(world, path)
        except DataError as error:
            log.warning("%s", error)
            yield None
            continue
        if world.missing:
            log.warning(
                "%s: %d of %d textures are missing, and grey: %s",
                name, len(world.missing), len(world.textures), ", ".join(world.missing),
            )  # fmt: skip
        sha256 = hashlib.sha256(files.read(file)).hexdigest()
        part = "/" + file.removesuffix("scene.xml")
        stated = [licence_names(owner.folder, owner.name, part) for owner in owners]
        yield replace(
            about,
            path=path.name,
            sha256=sha256,
            licence="; ".join(filter(None, stated)) or about.licence,
            split=split_of(sha256, "photographs"),
            triangles=len(world.mesh.triangles),
            textures=len(world.textures),
            missing_textures=len(world.missing),
        )


def _slug(place: str) -> str:
    return place.removeprefix(_PLACE).strip("./").replace("/", "-") or "game"
