"""Furniture of a corpus: models of Sweet Home 3D's libraries, as compact files.

``furniture/furniture.jsonl`` has one line per piece, beside the files of
:mod:`superglue_ros.synthetic.worlds.storage`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.furniture import read_catalogue, read_pieces
from superglue_ros.synthetic.worlds.storage import write_piece
from superglue_ros.training.data.corpus import FURNITURE, Source, read_list, split_of

FOLDER = "furniture"
MANIFEST = "furniture.jsonl"


@dataclass(frozen=True)
class CorpusPiece:
    """One line of the manifest. ``path`` is absolute or relative to the manifest's folder."""

    path: str
    name: str
    sha256: str
    source: str
    licence: str
    split: str
    triangles: int


def collect_furniture(sources: Sequence[Source], folder: Path) -> list[CorpusPiece]:
    """Write the pieces of all libraries (``.sh3f``) of those ``sources`` to ``folder``.

    A piece that cannot be read is left out and logged. Empty without such sources; raises
    :class:`DataError` where a library is damaged, or there are sources and no piece in them.
    """
    sources = [source for source in sources if source.kind == FURNITURE]
    if not sources:
        return []
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    kept: list[CorpusPiece] = []
    for source in sources:
        for library in sorted(source.folder.rglob("*.sh3f")):
            licence, listed = read_catalogue(library)
            pieces = read_pieces(library, listed)
            console = Console(stderr=True)
            for piece in track(pieces, library.stem, total=len(listed), console=console):
                path = target / f"{library.stem}_{len(kept):04d}.npz"
                write_piece(piece, path)
                sha256 = hashlib.sha256(piece.mesh.positions.tobytes()).hexdigest()
                kept.append(
                    CorpusPiece(
                        path=path.name,
                        name=piece.name,
                        sha256=sha256,
                        source=f"{source.name}, {library.name}",
                        licence=licence,
                        split=split_of(sha256, "photographs"),
                        triangles=len(piece.mesh.triangles),
                    )
                )
    if not kept:
        names = ", ".join(source.name for source in sources)
        raise DataError(f"no furniture could be read of {names}: give folders with .sh3f libraries")
    lines = [json.dumps(asdict(piece), ensure_ascii=False) for piece in kept]
    (target / MANIFEST).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return kept


def read_furniture(folder: str | Path, split: str = "") -> list[CorpusPiece]:
    """The furniture of the corpus in ``folder``; ``split``: ``train``, ``test``, or empty for both.

    Paths are absolute. Empty where the corpus has none; raises :class:`DataError` where the list is
    damaged.
    """
    file = Path(folder) / FOLDER / MANIFEST
    if not file.is_file():
        return []
    listed = read_list(file, CorpusPiece, "piece of furniture")
    pieces = [replace(piece, path=str(file.parent / piece.path)) for piece in listed]
    return [piece for piece in pieces if split in ("", piece.split)]
