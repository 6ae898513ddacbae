"""A map as a scene: triangles with texture and light, and the free space for cameras.

World axes: x and y along the floor, z up, metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.bsp import BILLBOARD, MESH, PATCH, PLANAR, BspMap, read_bsp
from superglue_ros.synthetic.worlds.bsp_space import METRES, BspSpace
from superglue_ros.synthetic.worlds.free_space import FreeSpace
from superglue_ros.synthetic.worlds.lightmaps import light_pages
from superglue_ros.synthetic.worlds.patches import tessellate
from superglue_ros.synthetic.worlds.shaders import Shader, parse_shaders

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

TEXTURE_SIDE = 256
"""Pixels of each side of a texture, whatever the picture's size: all go into one array."""

_SKY, _NODRAW = 0x4, 0x80  # bits of a texture's flags
LARGEST_UV = 4096.0
"""Repeats of a texture, of which larger numbers are cut: they cost accuracy."""
GREY = 128
"""Grey value of a texture that is missing."""
_DATA = {"position": 3, "texture_uv": 2, "light_uv": 2, "normal": 3}


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of a world.

    Of every vertex: ``positions`` (V, 3) [m], ``texture_uv`` (V, 2) and ``light_uv`` (V, 2), where
    1 is the picture's far edge, ``normals`` (V, 3), ``brightness`` (V,) in [0, 1] of surfaces
    without lightmap (0 for the others), ``texture`` and ``light`` (V,) int16, indices of pictures,
    ``light`` -1 for none. ``triangles`` (T, 3) int32.
    """

    positions: Floats
    texture_uv: Floats
    light_uv: Floats
    normals: Floats
    brightness: Floats
    texture: NDArray[np.int16]
    light: NDArray[np.int16]
    triangles: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class World:
    """All that a view needs.

    ``textures`` (K, S, S, 2) uint8, grey value and opacity; ``lights`` (P, L, L) uint8; ``missing``
    names the textures that were not found, which are grey.
    """

    mesh: Mesh
    textures: Pixels
    lights: Pixels
    space: FreeSpace
    missing: tuple[str, ...] = ()


def read_shaders(files: GameFiles) -> dict[str, Shader]:
    """All shaders of a game by name."""
    shaders: dict[str, Shader] = {}
    for name in files.names("scripts", ".shader"):
        shaders |= parse_shaders(files.read(name).decode("latin-1"))
    return shaders


def read_world(
    files: GameFiles, shaders: Mapping[str, Shader], name: str, side: int = TEXTURE_SIDE
) -> World:
    """The world of the map ``maps/NAME.bsp``, with textures of ``side`` pixels.

    Raises :class:`DataError` where the map is damaged, no IBSP, or shows nothing.
    """
    path = f"maps/{name}.bsp"
    bsp = read_bsp(files.read(path), path)
    looks = [_look(texture, files, shaders) for texture in bsp.textures]
    drawn = [
        face
        for face in bsp.faces
        if looks[face["texture"]] is not None and face["kind"] != BILLBOARD
    ]
    named = np.array([face["lightmap"] for face in drawn], np.int32)
    lights, pages = light_pages(bsp, files, name, named)
    used = sorted({int(face["texture"]) for face in drawn})
    mesh = _mesh(bsp, drawn, {index: place for place, index in enumerate(used)}, pages)
    if not len(mesh.triangles):
        raise DataError(f"{path} shows nothing: leave it out")
    missing, textures = [], []
    for index in used:
        look = looks[index]
        pixels = files.pixels(look.picture) if look and look.picture else None
        if look is None or pixels is None:
            missing.append(_name(bsp.textures[index]))
            pixels = missing_texture()
        elif not look.alpha_tested:
            pixels[..., 1] = 255
        textures.append(fitted(pixels, side))
    return World(
        mesh=mesh,
        textures=np.stack(textures),
        lights=lights,
        space=BspSpace.of(bsp),
        missing=tuple(missing),
    )


def missing_texture() -> NDArray[np.uint8]:
    """Grey and opaque, (1, 1, 2)."""
    return np.full((1, 1, 2), (GREY, 255), np.uint8)


def fitted(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A texture (H, W, 2), grey value and opacity, as (side, side, 2)."""
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class _Look:
    """What a texture of a map shows: a picture of the game, None where it is missing."""

    picture: str | None
    alpha_tested: bool


def _name(texture: Any) -> str:
    return texture["name"].split(b"\0")[0].decode("latin-1").lower()


def _look(texture: Any, files: GameFiles, shaders: Mapping[str, Shader]) -> _Look | None:
    """None for what is not drawn."""
    name = _name(texture)
    shader = shaders.get(name)
    if texture["flags"] & (_SKY | _NODRAW) or name in ("", "noshader"):
        return None
    if name.startswith("textures/common/") or (shader and (shader.hidden or shader.translucent)):
        return None
    candidates = [*(shader.pictures if shader else ()), name]
    found = (files.picture(candidate) for candidate in candidates)
    # Surfaces without shader are opaque in one game, and cut out by their opacity in the other.
    return _Look(
        next((picture for picture in found if picture), None),
        shader is None or shader.alpha_tested,
    )


def _mesh(
    bsp: BspMap, faces: Sequence[Any], place_of: Mapping[int, int], pages: NDArray[np.int16]
) -> Mesh:
    brightness = bsp.vertices["colour"][:, :3].mean(axis=1, dtype=np.float32) / 255
    table = np.concatenate(
        [*(bsp.vertices[key] for key in _DATA), brightness[:, None]], axis=1, dtype=np.float32
    )
    corners, triangles, textures, lights = [], [], [], []
    total = 0
    for face, page in zip(faces, pages, strict=True):
        first, count = int(face["first_vertex"]), int(face["vertices"])
        points = table[first : first + count]
        if face["kind"] in (PLANAR, MESH):
            start, length = int(face["first_mesh_vertex"]), int(face["mesh_vertices"])
            corner = bsp.mesh_vertices[start : start + length - length % 3].reshape(-1, 3)
            if corner.size and (corner.min() < 0 or corner.max() >= count):
                raise DataError("a face refers to a vertex that is not there: the map is damaged")
        elif face["kind"] == PATCH:
            width, height = face["patch_size"].tolist()
            if width < 0 or width * height != count:
                raise DataError("a patch has not the points that it needs: the map is damaged")
            points, corner = tessellate(points.reshape(height, width, -1))
        else:
            continue
        # Whole repeats say nothing, and large numbers cost accuracy.
        points = points.copy()
        if len(points):
            points[:, 3:5] -= np.floor(points[:, 3:5].min(axis=0))
        corners.append(points)
        triangles.append(corner + total)
        textures.append(np.full(len(points), place_of[int(face["texture"])], np.int16))
        lights.append(np.full(len(points), page, np.int16))
        total += len(points)
    values = np.concatenate([np.zeros((0, table.shape[1]), np.float32), *corners])
    ends = np.cumsum(list(_DATA.values()))
    # Some compilers leave rubbish in what a surface does not use.
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    position, texture_uv, light_uv, normal, bright = np.split(values, ends, axis=1)
    none = np.zeros(0, np.int16)
    light = np.concatenate([none, *lights])
    lit = light >= 0
    return Mesh(
        positions=position * np.float32(METRES),
        texture_uv=texture_uv.clip(-LARGEST_UV, LARGEST_UV),
        light_uv=np.where(lit[:, None], light_uv.clip(0, 1), 0),
        normals=normal,
        brightness=np.where(lit, 0, bright[:, 0]),
        texture=np.concatenate([none, *textures]),
        light=light,
        triangles=np.concatenate([np.zeros((0, 3), np.int32), *triangles]).astype(np.int32),
    )
