"""A track of one straight road, written byte by byte: walls, a crate of the library, and a fence.

In the world's axes the road is 20 x 40 m from (-10, 0), along y; its walls are 8 m high. The crate
(CRATE) stands turned by -30 degrees. In the file's axes y is up and z along the road.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .small_map import fence_opacity, picture, textured

LOW, HIGH = np.array([-10.0, 0.0, 0.0]), np.array([10.0, 40.0, 8.0])
CRATE = np.array([3.0, 20.0, 0.0])  # the middle of its foot
CRATE_SIZE = np.array([2.0, 3.0, 1.5])
CRATE_YAW = -np.pi / 6
FENCE = np.array([[-6.0, 30.0, 0.0], [-4.0, 30.0, 2.0]])
DATA = "usr/share/games/small/data"


@dataclass
class Buffer:
    """What a buffer of a model is written from; positions in the file's axes."""

    texture: int
    positions: list[tuple[float, ...]] = field(default_factory=list)
    normals: list[tuple[float, ...]] = field(default_factory=list)
    uv: list[tuple[float, float]] = field(default_factory=list)
    corners: list[int] = field(default_factory=list)
    colours: list[tuple[int, int, int]] | None = None

    def quad(self, origin, edge_u, edge_v, every=4.0) -> None:
        """A rectangle whose picture repeats ``every`` so many metres."""
        origin, edge_u, edge_v = (np.asarray(v, float) for v in (origin, edge_u, edge_v))
        first, normal = len(self.positions), np.cross(edge_u, edge_v)
        normal /= np.linalg.norm(normal)
        u, v = np.linalg.norm(edge_u) / every, np.linalg.norm(edge_v) / every
        for s, t in ((0, 0), (1, 0), (1, 1), (0, 1)):
            self.positions.append(tuple(origin + s * edge_u + t * edge_v))
            self.normals.append(tuple(normal))
            self.uv.append((3 + s * u, 5 + t * v))
        self.corners += [first + i for i in (0, 1, 2, 0, 2, 3)]


def spm(
    textures: Sequence[tuple[str, str]], buffers: Sequence[Buffer], flags: int = 1, sectors: int = 1
) -> bytes:
    """A model file; ``flags``: 1 normals, 2 colours, 4 tangents."""
    out = b"SP" + struct.pack("<2B6f", 0x0A, flags, *([0.0] * 6))
    out += struct.pack("<H", len(textures))
    for pair in textures:
        for name in pair:
            out += struct.pack("<B", len(name)) + name.encode()
    out += struct.pack("<2H", sectors, len(buffers))
    for b in buffers:
        out += struct.pack("<2IH", len(b.positions), len(b.corners), b.texture)
        first, second = textures[b.texture] if b.texture < len(textures) else ("", "")
        for k, position in enumerate(b.positions):
            out += struct.pack("<3f", *position)
            if flags & 1:
                x, y, z = (round(511 * value) & 1023 for value in b.normals[k])
                out += struct.pack("<I", x | y << 10 | z << 20)
            if flags & 2:
                colour = b.colours[k] if b.colours else (255, 255, 255)
                white = colour == (255, 255, 255)
                out += b"\x80" if white else struct.pack("<4B", 255, *colour)
            if first:
                out += struct.pack("<2e", *b.uv[k])
                out += struct.pack("<2e", 9.0, 9.0) if second else b""
                out += struct.pack("<I", 7) if flags & 4 else b""
        out += struct.pack(
            f"<{len(b.corners)}{'B' if len(b.positions) <= 255 else 'H'}", *b.corners
        )
    return out


def road() -> bytes:
    """Ground and four walls."""
    ground, wall = Buffer(0), Buffer(1)
    ground.quad([-10, 0, 0], [0, 0, 40], [20, 0, 0])
    for origin, edge in (
        ([-10, 0, 0], [0, 0, 40]), ([10, 0, 40], [0, 0, -40]),
        ([-10, 0, 40], [20, 0, 0]), ([10, 0, 0], [-20, 0, 0]),
    ):  # fmt: skip
        wall.quad(origin, edge, [0, 8, 0])
    return spm([("ground.jpg", ""), ("WALL.png", "")], [ground, wall])


def crate() -> bytes:
    """A cube of 1 m that stands on the origin."""
    sides = Buffer(0)
    x, y, z = np.eye(3)
    low = np.array([-0.5, 0, -0.5])
    for origin, u, v in (
        (low, x, y), (low + x, z, y), (low + x + z, -x, y), (low + z, -z, y), (low + y, z, x),
        (low, x, z),
    ):  # fmt: skip
        sides.quad(origin, u, v, every=1.0)
    return spm([("crate.jpg", "")], [sides])


def board(texture: str) -> bytes:
    """An upright square of 2 m along x."""
    square = Buffer(0)
    square.quad([0, 0, 0], [2, 0, 0], [0, 2, 0], every=2.0)
    return spm([(texture, "")], [square])


SCENE = b"""<?xml version="1.0"?>
<scene>
  <lod><group name="fence">
    <static-object lod_distance="200" lod_group="fence" model="absent.spm" xyz="0 0 0"/>
    <static-object lod_distance="50" lod_group="fence" model="fence.spm" xyz="9 9 9"/>
  </group></lod>
  <track model="road.spm" x="0" y="0" z="0">
    <static-object lod_instance="true" lod_group="fence" xyz="-6 0 30"/>
    <static-object model="road.spm" xyz="0 1 0" interaction="physics-only"/>
  </track>
  <object type="animation" model="fence.spm" xyz="0 0 10"><curve channel="LocX"/></object>
  <object type="billboard" texture="wall.png" xyz="0 0 10"/>
  <object type="animation" model="fence.spm" xyz="0 0 10" if="isTrackReverse"/>
  <object type="animation" model="glass.spm" xyz="0 0 10" if="isTrackNotReverse"/>
  <object type="animation" model="void.spm" xyz="0 0 11"/>
  <library name="crate" xyz="3 0 20" hpr="0 30 0" scale="2 1.5 3"></library>
  <sun xyz="0 100 0" ambient="51 51 51" sun-diffuse="102 102 102"/>
</scene>
"""
NODE = (
    b"""<scene><object type="animation" model="crate.spm" hpr="90 0 0" xyz="0 0.5 -0.5"/></scene>"""
)
QUADS = b"""<quads>
  <quad p0="-4 0 2" p1="4 0 2" p2="4 0 20" p3="-4 0 20"/>
  <quad p0="0:3" p1="0:2" p2="4 0.4 38" p3="-4 0.4 38"/>
</quads>
"""
MATERIALS = b"""<materials>
  <material name="fence.png" shader="alphatest"/>
  <material name="glass.png" shader="alphablend"/>
  <material name="void.png" shader="alphatest"/>
</materials>
"""


def track_files(**changed: bytes) -> dict[str, bytes]:
    """Files of the game by name. The crate's texture is one of those that all tracks share."""
    holes = picture(np.full((64, 64), 90, np.uint8), "PNG", fence_opacity())
    void = picture(np.full((8, 8), 90, np.uint8), "PNG", np.zeros((8, 8), np.uint8))
    return {
        "tracks/road/scene.xml": SCENE,
        "tracks/road/quads.xml": QUADS,
        "tracks/road/materials.xml": MATERIALS,
        "tracks/road/road.spm": road(),
        "tracks/road/fence.spm": board("fence.png"),
        "tracks/road/glass.spm": board("glass.png"),
        "tracks/road/void.spm": board("void.png"),
        "tracks/road/ground.jpg": picture(textured(3), "JPEG"),
        "tracks/road/wall.png": picture(textured(4), "PNG"),
        "tracks/road/fence.png": holes,
        "tracks/road/glass.png": holes,
        "tracks/road/void.png": void,
        "library/crate/node.xml": NODE,
        "library/crate/crate.spm": crate(),
        "textures/crate.jpg": picture(textured(5), "JPEG"),
    } | changed


def write_track(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """The game below ``folder``, at a place like a Debian package's."""
    data = folder / DATA
    for name, content in (track_files() if files is None else files).items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return data
