"""Furniture for worlds: textured models of Sweet Home 3D's libraries, set on the floor.

A library (``.sh3f``) is a ZIP file with OBJ models and a catalogue that gives the size of each.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.free_space import FreeSpace
from superglue_ros.synthetic.worlds.world import TEXTURE_SIDE, Mesh, World, fitted

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

CATALOGUE = "PluginFurnitureCatalog.properties"

_ENTRY = re.compile(r"^(\w+)(?:#(\d+))?=(.*)$")
_MOST_TRIANGLES = 15_000  # more than many maps have
_LARGEST_FILE = 64 << 20
_BRIGHTNESS = 0.5  # light that comes from everywhere: furniture has no lightmap
_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # OBJ has y up
_UV_LIMIT = 64.0
_PLACES = 3  # tried for each piece
_LARGEST_SCALE = 2.0  # rooms of games are larger than ours
_LIGHT = (0.7, 1.5)  # of a piece, in parts of the map's usual light
_LIFT_M = 0.06  # bumps of a floor that a piece may stand in
_OPAQUE = 250


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of furniture, as ``mesh`` [m] and ``textures`` (K, S, S, 2) of a :class:`World`.

    It stands on z = 0 with its middle over the origin, and its front towards -y.
    """

    name: str
    mesh: Mesh
    textures: Pixels

    @property
    def size(self) -> Array:
        """Width, depth and height [m]."""
        return np.ptp(self.mesh.positions.astype(np.float64), axis=0)


@dataclass(frozen=True)
class CataloguePiece:
    """What a catalogue says of a piece: its name, model in the archive, size (3,) [m]."""

    name: str
    model: str
    size: tuple[float, float, float]


def read_catalogue(path: Path) -> tuple[str, list[CataloguePiece]]:
    """Licence of a library, and its pieces that stand on a floor: no doors, windows or lamps above.

    Raises :class:`DataError` where the file is no library.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(CATALOGUE).decode("latin-1").splitlines()
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is no library of Sweet Home 3D ({error}): fetch it again"
        ) from error
    values: dict[str, dict[str, str]] = {}
    for line in lines:
        found = _ENTRY.match(line.strip())
        if found:
            values.setdefault(found[2] or "", {})[found[1]] = found[3].strip()
    about = values.pop("", {})
    pieces = [piece for entry in values.values() if (piece := _standing(entry)) is not None]
    return about.get("license", "see the library"), pieces


def read_pieces(path: Path, pieces: Sequence[CataloguePiece]) -> Iterator[Piece]:
    """The models of ``pieces``; what cannot be read, or is too detailed, is left out and logged.

    Raises :class:`DataError` where trimesh, which reads the models, is missing.
    """
    try:
        import trimesh
    except ImportError as error:
        raise DataError("furniture is read by trimesh: pip install trimesh") from error
    logging.getLogger("trimesh").setLevel(logging.ERROR)  # of materials that do not matter
    with zipfile.ZipFile(path) as archive:
        for piece in pieces:
            try:
                folder = piece.model.rpartition("/")[0]
                model = _small(archive, piece.model)
                files = {
                    name: io.BytesIO(_small(archive, name))
                    for name in archive.namelist()
                    if name.rpartition("/")[0] == folder and not name.endswith("/")
                }
                scene = trimesh.load_scene(
                    io.BytesIO(model),
                    file_type="obj",
                    resolver=trimesh.resolvers.ZipResolver(files, namespace=folder),
                )
                yield piece_of(piece.name, scene, np.array(piece.size))
            except Exception as error:  # a parser of a foreign format, on any bytes
                log.warning("%s of %s is left out: %s", piece.model, path.name, error)


def piece_of(name: str, scene: Any, size: Array, side: int = TEXTURE_SIDE) -> Piece:
    """A piece of ``size`` (3,) [m] of a trimesh scene with y up.

    Raises :class:`DataError` where it has no triangles, or too many.
    """
    parts = [part for part in scene.dump() if len(getattr(part, "faces", ()))]
    count = sum(len(part.faces) for part in parts)
    if not 0 < count <= _MOST_TRIANGLES:
        raise DataError(f"it has {count} triangles, which must be 1 to {_MOST_TRIANGLES}")
    positions = np.concatenate([np.asarray(part.vertices) for part in parts]) @ _Z_UP.T
    normals = np.concatenate([np.asarray(part.vertex_normals) for part in parts]) @ _Z_UP.T
    low, high = positions.min(axis=0), positions.max(axis=0)
    middle = (low + high) / 2
    scale = size / np.maximum(high - low, 1e-9)
    positions = (positions - [middle[0], middle[1], low[2]]) * scale
    normals = normals / scale
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    looks = [_look(part.visual, len(part.vertices), side) for part in parts]
    lengths = [len(part.vertices) for part in parts]
    starts = np.cumsum([0, *lengths])
    triangles = [np.asarray(part.faces) + start for part, start in zip(parts, starts, strict=False)]
    total = int(starts[-1])
    if not (np.isfinite(positions).all() and np.isfinite(normals).all()):
        raise DataError("its vertices are not finite")
    return Piece(
        name=name,
        mesh=Mesh(
            positions=positions.astype(np.float32),
            texture_uv=np.concatenate([uv for uv, _ in looks]).astype(np.float32),
            light_uv=np.zeros((total, 2), np.float32),
            normals=normals.astype(np.float32),
            brightness=np.full(total, _BRIGHTNESS, np.float32),
            texture=np.repeat(np.arange(len(parts)), lengths).astype(np.int16),
            light=np.full(total, -1, np.int16),
            triangles=np.concatenate(triangles).astype(np.int32),
        ),
        textures=np.stack([texture for _, texture in looks]),
    )


def furnish(world: World, pieces: Sequence[Piece], count: int, rng: np.random.Generator) -> World:
    """The world with up to ``count`` of ``pieces`` on its floors, turned about the vertical.

    They stand where their whole box is free, up to twice as large as in the catalogue, and as light
    as the map; pieces may stand in one another, as in a full room.
    """
    meshes, textures = [world.mesh], [world.textures]
    first = np.cumsum([len(world.textures), *(len(piece.textures) for piece in pieces)])
    used: set[int] = set()
    lit = world.lights[world.lights > 0]
    usual = float(np.median(lit)) / 255 if len(lit) else _BRIGHTNESS
    for _ in range(count if pieces else 0):
        index = int(rng.integers(len(pieces)))
        scale = rng.uniform(1.0, _LARGEST_SCALE)
        pose = _place(world.space, scale * pieces[index].size, rng)
        if pose is not None:
            light = min(usual * rng.uniform(*_LIGHT), 1.0)
            moved = _moved(pieces[index].mesh, scale, *pose)
            meshes.append(
                replace(
                    moved,
                    brightness=np.full_like(moved.brightness, light),
                    texture=moved.texture + np.int16(first[index]),
                )
            )
            used.add(index)
    if not used:
        return world
    textures += [piece.textures for piece in pieces]
    return replace(world, mesh=_joined(meshes), textures=np.concatenate(textures))


def _standing(entry: dict[str, str]) -> CataloguePiece | None:
    """A piece that stands on the floor upright as modelled; None for any other."""
    try:
        size = [float(entry[key]) / 100 for key in ("width", "depth", "height")]
        name, model = entry["name"], entry["model"].lstrip("/")
    except (KeyError, ValueError):
        return None
    fixed = entry.get("doorOrWindow") == "true" or "doorOrWindowCutOutShape" in entry
    hangs = entry.get("elevation", "0") not in ("", "0", "0.0")
    if fixed or hangs or "modelRotation" in entry or min(size) <= 0.02 or max(size) > 6:
        return None
    return CataloguePiece(name, model, (size[0], size[1], size[2]))


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _LARGEST_FILE:
        raise DataError(f"{name} has {size} bytes, the limit is {_LARGEST_FILE}")
    return archive.read(name)


def _look(visual: Any, vertices: int, side: int) -> tuple[Array, Pixels]:
    """Texture coordinates (V, 2), 1 the picture's far edge, and texture (side, side, 2)."""
    material = getattr(visual, "material", None)
    picture = getattr(material, "image", None)
    uv = getattr(visual, "uv", None)
    if picture is None or uv is None:
        colour = np.asarray(getattr(material, "diffuse", (128, 128, 128)), np.float64)[:3]
        grey = round(float(colour @ [0.299, 0.587, 0.114]))
        return np.zeros((vertices, 2)), np.full((side, side, 2), (grey, 255), np.uint8)
    colours = picture.convert("RGBA")
    pixels = np.dstack([np.asarray(colours.convert("L")), np.asarray(colours)[..., 3]])
    if pixels[..., 1].min() >= _OPAQUE:
        pixels[..., 1] = 255
    coordinates = np.nan_to_num(np.asarray(uv, np.float64)) * [1, -1] + [0, 1]  # v goes upwards
    coordinates -= np.floor(coordinates.min(axis=0))
    return coordinates.clip(-_UV_LIMIT, _UV_LIMIT), fitted(pixels, side)


def _place(
    space: FreeSpace, size: Array, rng: np.random.Generator
) -> tuple[Array, NDArray[np.float64]] | None:
    """Rotation (3, 3) and foot (3,) of a free place on a floor; None where none is found."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
    for _ in range(_PLACES):
        foot = space.floor_below(space.draw(rng))
        angle = rng.uniform(-np.pi, np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        if foot is None:
            continue
        box = (corners * size) @ turn.T + foot
        lift = [0, 0, _LIFT_M]
        stands = not any(space.is_free(corner - lift) for corner in box[::2])
        if stands and all(space.is_free(corner + lift) for corner in box):
            return turn, foot
    return None


def _moved(mesh: Mesh, scale: float, turn: Array, foot: Array) -> Mesh:
    return replace(
        mesh,
        positions=(scale * mesh.positions @ turn.T + foot).astype(np.float32),
        normals=(mesh.normals @ turn.T).astype(np.float32),
    )


def _joined(meshes: Sequence[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.positions) for mesh in meshes[:-1])])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, starts, strict=True)]
    joined = {
        name: np.concatenate([getattr(mesh, name) for mesh in meshes])
        for name in (
            "positions", "texture_uv", "light_uv", "normals", "brightness", "texture", "light",
        )
    }  # fmt: skip
    return Mesh(**joined, triangles=np.concatenate(triangles).astype(np.int32))
