"""Tracks of SuperTuxKart as scenes: what stands still and is opaque, and the drive line.

``tracks/NAME/scene.xml`` places models of that folder, and objects of ``library/NAME/node.xml``,
which place their own. ``materials.xml`` beside them, and that of ``textures``, say how textures are
drawn. Lengths are metres (a kart is about 1.5 m long); axes are left-handed, y up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.drive_line import faces_of, quads_of
from superglue_ros.synthetic.worlds.spm import SpmBuffer, read_spm
from superglue_ros.synthetic.worlds.track_space import TrackSpace
from superglue_ros.synthetic.worlds.world import (
    LARGEST_UV,
    TEXTURE_SIDE,
    Mesh,
    World,
    fitted,
    missing_texture,
)

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_TO_WORLD = [0, 2, 1]  # x right, z forward, y up: right-handed, z up
_STANDING = ("", "animation", "movable")  # types of objects; without a curve they stand still
_UNSEEN = ("physics-only", "physicsonly")
_TRANSLUCENT = ("alphablend", "additive", "displace", "spheremap")
_CUT_OUT = ("alphatest", "grass")
_SHARED = "textures"
_OPAQUE = 128
_FARTHEST_M = 1e5


@dataclass(frozen=True)
class _Placed:
    """A model, and the matrix (4, 4) from its axes to the track's."""

    folder: str
    model: str
    matrix: Array


@dataclass(frozen=True, eq=False)
class _Sun:
    """Light of a track: from everywhere, and from ``direction`` (3,), in the track's axes."""

    ambient: float = 0.5
    diffuse: float = 0.5
    direction: tuple[float, float, float] = (0.0, 1.0, 0.0)


def track_names(files: GameFiles) -> list[str]:
    """Tracks of a game, sorted."""
    return files.folders("tracks", "scene.xml")


def read_track(files: GameFiles, name: str, side: int = TEXTURE_SIDE) -> World:
    """The world of ``tracks/NAME``, with textures of ``side`` pixels.

    A model that cannot be read is left out and logged. Raises :class:`DataError` where the scene
    or the drive line is damaged, or there is nothing to see or nowhere to drive.
    """
    folder = f"tracks/{name}"
    scene = _parse(files, f"{folder}/scene.xml")
    quads = _drive_line(files, folder)
    parts = list(_parts(files, _placed(files, scene, [folder], np.eye(4))))
    looks = _Looks(files, side)
    drawn = [part for part in parts if looks.place(part[0].folder, part[1].texture) is not None]
    if not drawn:
        raise DataError(f"{folder}/scene.xml shows nothing: leave it out")
    mesh = _mesh(drawn, looks, _sun(scene))
    return World(
        mesh=mesh,
        textures=np.stack(looks.textures),
        lights=np.zeros((0, 1, 1), np.uint8),
        space=TrackSpace.of(mesh.positions[mesh.triangles], quads[..., _TO_WORLD]),
        missing=tuple(looks.missing),
    )


def _parse(files: GameFiles, path: str) -> Element:
    try:
        return ElementTree.fromstring(files.read(path))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} is no XML ({error}): fetch the file again") from error


def _drive_line(files: GameFiles, folder: str) -> Array:
    for file, read in (("quads.xml", quads_of), ("navmesh.xml", faces_of)):
        path = f"{folder}/{file}"
        if path in files:
            return read(_parse(files, path), path)
    raise DataError(f"{folder} has neither quads.xml nor navmesh.xml to drive on: leave it out")


def _placed(
    files: GameFiles, root: Element, folders: list[str], matrix: Array
) -> Iterator[_Placed]:
    """Models that a scene shows at rest, before a race, in the finest of their levels of detail.

    ``folders`` are its own, last, and those of what it is part of: nothing is part of itself.
    """
    finest: dict[str, tuple[float, str]] = {}
    for level in root.iterfind("lod/group/static-object"):
        entry = float(_numbers(level, "lod_distance", "0")[0]), level.get("model", "")
        group = level.get("lod_group", "")
        finest[group] = min(finest.get(group, entry), entry)
    for element in [*root, *root.iterfind("track/*")]:
        if not _is_at_rest(element):
            continue
        place = matrix @ _matrix_of(element)
        if element.tag == "library":
            inner = f"library/{element.get('name')}"
            if inner not in folders and f"{inner}/node.xml" in files:
                node = _parse(files, f"{inner}/node.xml")
                yield from _placed(files, node, [*folders, inner], place)
        elif element.tag in ("track", "static-object", "object"):
            model = element.get("model", "")
            if element.get("lod_instance") == "true":
                model = finest.get(element.get("lod_group", ""), (0.0, model))[1]
            if model:
                yield _Placed(folders[-1], model, place)


def _is_at_rest(element: Element) -> bool:
    condition = element.get("if", "")
    return (
        element.find("curve") is None
        and element.get("skeletal-animation") != "true"
        and element.get("interaction") not in _UNSEEN
        and (element.tag != "object" or element.get("type", "") in _STANDING)
        and (not condition or "Not" in condition)  # reversed races, flags, what is locked
    )


def _matrix_of(element: Element) -> Array:
    """From an object's axes to those of what it is part of: scaled, turned about x, y, z, moved."""
    turned = Rotation.from_euler("xyz", _numbers(element, "hpr", "0 0 0"), degrees=True)
    matrix = np.eye(4)
    matrix[:3, :3] = turned.as_matrix() * _numbers(element, "scale", "1 1 1")
    matrix[:3, 3] = _numbers(element, "xyz", "0 0 0")
    return matrix


def _numbers(element: Element, key: str, usual: str) -> Array:
    """As many finite numbers as ``usual`` has. Raises :class:`DataError` where there are others."""
    text = element.get(key, usual)
    try:
        numbers = np.array(text.split(), np.float64)
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != len(usual.split()) or not np.isfinite(numbers).all():
        raise DataError(f"a {element.tag} has {key}={text!r}: give numbers like {usual!r}")
    return numbers


def _parts(files: GameFiles, placed: Iterator[_Placed]) -> Iterator[tuple[_Placed, SpmBuffer]]:
    """The buffers of all models that are there, of which each is read once."""
    known: dict[str, list[SpmBuffer]] = {}
    for one in placed:
        path = f"{one.folder}/{one.model}"
        if path not in known:
            try:
                known[path] = read_spm(files.read(path), path)
            except DataError as error:
                log.warning("%s", error)
                known[path] = []
        yield from ((one, buffer) for buffer in known[path] if buffer.triangles.size)


class _Looks:
    """Textures of a track as they are asked for."""

    def __init__(self, files: GameFiles, side: int) -> None:
        self._files, self._side = files, side
        self._materials: dict[str, dict[str, Element]] = {}
        self._places: dict[tuple[str, str], int | None] = {}
        self.textures: list[Pixels] = []
        self.missing: list[str] = []

    def place(self, folder: str, texture: str) -> int | None:
        """Index of a texture, None for what is not drawn."""
        key = folder, texture
        if key not in self._places:
            pixels = self._pixels(folder, texture)
            self._places[key] = None if pixels is None else len(self.textures)
            if pixels is not None:
                self.textures.append(fitted(pixels, self._side))
        return self._places[key]

    def _pixels(self, folder: str, texture: str) -> Pixels | None:
        """Grey value and opacity (H, W, 2); None for what is translucent, or all hole."""
        material = self._material(folder, texture)
        shader = material.get("shader", "")
        if shader in _TRANSLUCENT:
            return None
        if not texture:  # the surface has a colour only
            return np.full((1, 1, 2), 255, np.uint8)
        pixels = self._picture(folder, texture)
        if pixels is None:
            self.missing.append(f"{folder}/{texture}")
            return missing_texture()
        if shader not in _CUT_OUT:
            pixels[..., 1] = 255
        elif (mask := material.get("mask")) and (holes := self._picture(folder, mask)) is not None:
            size = pixels.shape[1], pixels.shape[0]
            pixels[..., 1] = cv2.resize(holes[..., 0], size)
        return pixels if pixels[..., 1].max() >= _OPAQUE else None

    def _picture(self, folder: str, name: str) -> Pixels | None:
        paths = [f"{place}/{name}" for place in (folder, _SHARED)]
        found = next((path for path in paths if path in self._files), None)
        return self._files.pixels(found) if found else None

    def _material(self, folder: str, texture: str) -> Element:
        """The last entry of that name, the folder's own before those that all tracks share."""
        for place in (folder, _SHARED):
            if place not in self._materials:
                path = f"{place}/materials.xml"
                root = _parse(self._files, path) if path in self._files else Element("materials")
                entries = root.iter("material")
                self._materials[place] = {entry.get("name", "").lower(): entry for entry in entries}
            if texture.lower() in self._materials[place]:
                return self._materials[place][texture.lower()]
        return Element("material")


def _sun(scene: Element) -> _Sun:
    element = scene.find("sun")
    if element is None:
        return _Sun()
    ambient, diffuse = (
        float(_numbers(element, key, "128 128 128").mean()) / 255
        for key in ("ambient", "sun-diffuse")
    )
    towards = _numbers(element, "xyz", "0 1 0")
    x, y, z = (towards / max(float(np.linalg.norm(towards)), 1e-9)).tolist()
    return _Sun(ambient, diffuse, (x, y, z))


def _mesh(parts: list[tuple[_Placed, SpmBuffer]], looks: _Looks, sun: _Sun) -> Mesh:
    positions, normals, brightness, uvs, textures, triangles = [], [], [], [], [], []
    total = 0
    for one, buffer in parts:
        turn, moved = one.matrix[:3, :3], one.matrix[:3, 3]
        normal = buffer.normals @ np.linalg.pinv(turn)  # a flat scale is possible
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        light = sun.ambient + sun.diffuse * (normal @ np.array(sun.direction)).clip(0, 1)
        position = (buffer.positions @ turn.T + moved)[:, _TO_WORLD]
        if not (np.abs(position) < _FARTHEST_M).all():
            raise DataError(f"{one.folder}/{one.model} reaches beyond 100 km: the track is damaged")
        positions.append(position)
        normals.append(normal[:, _TO_WORLD])
        brightness.append((buffer.colour * light).clip(0, 1))
        # Whole repeats say nothing, and large numbers cost accuracy.
        uvs.append((buffer.uv - np.floor(buffer.uv.min(axis=0))).clip(0, LARGEST_UV))
        place = looks.place(one.folder, buffer.texture)
        textures.append(np.full(len(buffer.positions), place, np.int16))
        triangles.append(buffer.triangles + total)
        total += len(buffer.positions)
    return Mesh(
        positions=np.concatenate(positions).astype(np.float32),
        texture_uv=np.concatenate(uvs).astype(np.float32),
        light_uv=np.zeros((total, 2), np.float32),
        normals=np.concatenate(normals).astype(np.float32),
        brightness=np.concatenate(brightness).astype(np.float32),
        texture=np.concatenate(textures),
        light=np.full(total, -1, np.int16),
        triangles=np.concatenate(triangles).astype(np.int32),
    )
