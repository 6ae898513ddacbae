"""Worlds as compact files: a map is half a megabyte, and a texture of several maps is kept once.

``NAME.npz`` has the mesh, and of a map the free space, and lightmaps as JPEG; ``textures/KEY.jpg``
is a grey picture, with its opacity in ``textures/KEY.png`` where it is cut out. KEY is the
content's hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import load_arrays
from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.bsp_space import BspSpace
from superglue_ros.synthetic.worlds.free_space import FreeSpace
from superglue_ros.synthetic.worlds.furniture import Piece
from superglue_ros.synthetic.worlds.track_space import TrackSpace
from superglue_ros.synthetic.worlds.world import Mesh, World

Pixels = NDArray[np.uint8]

_QUALITY = 80
_DECIMALS = 3  # of a metre, and of a texture: a quarter of a pixel
_OPAQUE = 128


def write_world(world: World, path: Path) -> None:
    """Write a world to ``path`` (``.npz``), and its textures into ``textures`` beside it."""
    arrays = _mesh_arrays(world.mesh, world.textures, path)
    arrays |= _space_arrays(world.space)
    lights = [_jpeg(page) for page in world.lights]
    arrays["lights"] = np.frombuffer(b"".join(lights), np.uint8)
    arrays["light_lengths"] = np.array([len(code) for code in lights], np.int64)
    arrays["missing"] = np.array(world.missing, np.str_)
    np.savez_compressed(path, **arrays)


def write_piece(piece: Piece, path: Path) -> None:
    """Write a piece of furniture to ``path``, and its textures into ``textures`` beside it."""
    arrays = _mesh_arrays(piece.mesh, piece.textures, path)
    np.savez_compressed(path, name=np.array(piece.name, np.str_), **arrays)


def load_world(path: str | Path) -> World:
    """The world of a file of :func:`write_world`. Raises :class:`DataError` where it is damaged."""
    path = Path(path)
    with _reading(path, "world"):
        arrays = load_arrays(path)
        lights, start = [], 0
        for length in arrays["light_lengths"]:
            lights.append(_decode(arrays["lights"][start : start + length], path))
            start += int(length)
        mesh, textures = _mesh_of(arrays, path)
        return World(
            mesh=mesh,
            textures=textures,
            lights=np.stack(lights) if lights else np.zeros((0, 1, 1), np.uint8),
            space=_space_of(arrays, mesh),
            missing=tuple(arrays["missing"].tolist()),
        )


def load_piece(path: str | Path) -> Piece:
    """The piece of a file of :func:`write_piece`. Raises :class:`DataError` where it is damaged."""
    path = Path(path)
    with _reading(path, "piece of furniture"):
        arrays = load_arrays(path)
        mesh, textures = _mesh_of(arrays, path)
        return Piece(str(arrays["name"]), mesh, textures)


def load_texture(path: Path) -> Pixels:
    """Grey value and opacity (S, S, 2) of ``KEY.jpg``. Raises :class:`DataError`."""
    try:
        grey = _decode(np.frombuffer(path.read_bytes(), np.uint8), path)
        mask = path.with_suffix(".png")
        opacity = np.full_like(grey, 255)
        if mask.is_file():
            opacity = _decode(np.frombuffer(mask.read_bytes(), np.uint8), mask)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): collect again") from error
    return np.dstack([grey, opacity])


def opaque_textures(folder: Path) -> Sequence[Path]:
    """Files of the textures beside the worlds in ``folder`` that have no holes, sorted."""
    files = sorted((folder / "textures").glob("*.jpg"))
    return [file for file in files if not file.with_suffix(".png").exists()]


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (DataError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path} is no {kind} that can be read ({error}): collect the corpus again"
        ) from error


def _mesh_arrays(mesh: Mesh, textures: Pixels, path: Path) -> dict[str, Any]:
    """Arrays of a mesh and names of its textures, which are written beside ``path``."""
    folder = path.parent / "textures"
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"mesh.{item.name}": getattr(mesh, item.name) for item in fields(Mesh)
    }
    for name, array in arrays.items():
        if array.dtype == np.float32:
            # Rounded numbers pack far better.
            arrays[name] = np.round(array, 4 if name == "mesh.light_uv" else _DECIMALS)
    arrays["textures"] = np.array([_write_texture(one, folder) for one in textures], np.str_)
    return arrays


def _space_arrays(space: FreeSpace) -> dict[str, Any]:
    assert isinstance(space, BspSpace | TrackSpace)
    names = [item.name for item in fields(space) if item.name != "corners"]  # the mesh has those
    return {f"space.{name}": getattr(space, name) for name in names}


def _space_of(arrays: Mapping[str, NDArray[Any]], mesh: Mesh) -> FreeSpace:
    parts = {
        name.removeprefix("space."): array
        for name, array in arrays.items()
        if name.startswith("space.")
    }
    if "places" in parts:
        return TrackSpace(corners=mesh.positions[mesh.triangles], **parts)
    return BspSpace(**parts)


def _mesh_of(arrays: Mapping[str, NDArray[Any]], path: Path) -> tuple[Mesh, Pixels]:
    folder = path.parent / "textures"
    textures = [load_texture(folder / f"{key}.jpg") for key in arrays["textures"]]
    mesh = Mesh(**{item.name: arrays[f"mesh.{item.name}"] for item in fields(Mesh)})
    return mesh, np.stack(textures)


def _write_texture(pixels: Pixels, folder: Path) -> str:
    key = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    if not (folder / f"{key}.jpg").exists():
        if pixels[..., 1].min() < _OPAQUE:
            mask = np.where(pixels[..., 1] < _OPAQUE, 0, 255).astype(np.uint8)
            code = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_BILEVEL, 1])[1]
            (folder / f"{key}.png").write_bytes(code.tobytes())
        (folder / f"{key}.jpg").write_bytes(_jpeg(np.ascontiguousarray(pixels[..., 0])))
    return key


def _jpeg(grey: Pixels) -> bytes:
    return cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _decode(code: Pixels, path: Path) -> Pixels:
    image = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE) if len(code) else None
    if image is None:
        raise DataError(f"{path} has a picture that cannot be read: collect the corpus again")
    return np.asarray(image, np.uint8)
