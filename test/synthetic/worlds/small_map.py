"""A game of one map, written byte by byte: a room with a box, a pillar, a curve and a fence.

The room is 8 x 6 x 4 m from the origin. The box (BOX) is part of the tree, the pillar (PILLAR) a
brush in the room's only leaf. The curved wall (a patch) bends in the corner, the fence has holes.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = np.array([8.0, 6.0, 4.0])
BOX = np.array([[3.0, 2.0, 0.0], [4.0, 3.5, 1.5]])
PILLAR = np.array([[6.0, 4.0, 0.0], [6.4, 4.4, 4.0]])
FENCE = np.array([[1.0, 4.5, 0.0], [2.5, 4.5, 2.0]])
CURVE_CENTRE, CURVE_RADIUS = np.array([6.0, 1.5]), 1.5
LIGHT = 200  # grey value of the lightmap

NAMES = (b"textures/wall", b"textures/crate", b"textures/fence", b"textures/common/clip",
         b"textures/curve")  # fmt: skip
WALL, CRATE, FENCE_TEXTURE, HIDDEN, CURVE = range(5)
LUMPS = 17
SCRIPT = b"""
// a fence
textures/fence
{
    qer_editorimage textures/absent
    cull none
    {
        map textures/fence_picture.tga
        alphaFunc GE128
    }
    {
        map $lightmap
        blendfunc filter
    }
}
textures/curve { { map $lightmap } { map textures/wall.jpg  blendFunc GL_DST_COLOR GL_ZERO } }
textures/glow { { map textures/wall.jpg
  blendFunc add } }
"""


def textured(seed: int, side: int = 256) -> np.ndarray:
    """A grey picture (side, side) with structure of every size."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side), np.float32)
    for cells in (4, 9, 20, 45):
        coarse = rng.normal(size=(cells, cells)).astype(np.float32)
        image += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def fence_opacity(side: int = 64) -> np.ndarray:
    """Opaque on the left half, a hole on the right."""
    opacity = np.zeros((side, side), np.uint8)
    opacity[:, : side // 2] = 255
    return opacity


class _Tables:
    """The map's tables as they grow."""

    def __init__(self) -> None:
        self.vertices, self.corners, self.faces, self.planes = [], [], [], []

    def face(self, kind, texture, points, uv, corners, normal, patch=(0, 0), light=0):
        first, first_corner = len(self.vertices), len(self.corners)
        for point, (s, t) in zip(points, uv, strict=True):
            metres = np.asarray(point) * 32
            light_uv = (0.25 + 0.5 * (s % 1), 0.25 + 0.5 * (t % 1))
            self.vertices.append(
                struct.pack("<3f2f2f3f4B", *metres, s, t, *light_uv, *normal, 255, 255, 255, 255)
            )
        self.corners += corners
        self.faces.append(
            struct.pack(
                "<12i3f6f3f2i",
                texture,
                -1,
                kind,
                first,
                len(points),
                first_corner,
                len(corners),
                light,
                0,
                0,
                0,
                0,
                *([0.0] * 9),
                *normal,
                *patch,
            )
        )

    def quad(self, texture, origin, edge_u, edge_v, kind=1, light=0):
        origin, edge_u, edge_v = map(np.asarray, (origin, edge_u, edge_v))
        normal = np.cross(edge_u, edge_v)
        normal = normal / np.linalg.norm(normal)
        corners = [origin, origin + edge_u, origin + edge_u + edge_v, origin + edge_v]
        u, v = np.linalg.norm(edge_u) / 2, np.linalg.norm(edge_v) / 2  # repeats every 2 m
        # Far from zero, as editors write them: whole repeats mean nothing.
        uv = [(7, 3), (7 + u, 3), (7 + u, 3 + v), (7, 3 + v)]
        self.face(kind, texture, corners, uv, [0, 1, 2, 0, 2, 3], normal, light=light)

    def plane(self, normal, distance) -> int:
        self.planes.append(struct.pack("<4f", *normal, distance * 32))
        return len(self.planes) - 1

    def box_planes(self, box, outward: bool) -> list[int]:
        found = []
        for axis in range(3):
            for sign, bound in ((-1.0, box[0][axis]), (1.0, box[1][axis])):
                normal = np.zeros(3)
                normal[axis] = sign if outward else -sign
                found.append(self.plane(normal, bound * normal[axis]))
        return found

    def box_faces(self, texture, box, kind=1):
        low, high = np.asarray(box)
        x, y, z = high - low
        a, b, c = np.eye(3) * (x, y, z)
        for origin, u, v in (
            (low, a, c), (low + a, b, c), (low + a + b, -a, c), (low + b, -b, c), (low + c, a, b),
        ):  # fmt: skip
            self.quad(texture, origin, u, v, kind)


def map_lumps(lightmaps: bool = True) -> list[bytes]:
    """The 17 tables of the map."""
    t = _Tables()
    x, y, z = SIZE
    a, b, c = np.eye(3) * SIZE
    o = np.zeros(3)
    for origin, u, v in (
        (o, b, c), (a, -a, c), (a + b, -b, c), (b, a, c), (o, a, b), (c, b, a),
    ):  # fmt: skip
        t.quad(WALL, origin, u, v)
    t.box_faces(CRATE, BOX, kind=3)
    t.box_faces(CRATE, PILLAR)
    t.quad(FENCE_TEXTURE, FENCE[0], [1.5, 0, 0], [0, 0, 2.0])
    t.quad(HIDDEN, [0.5, 0.5, 0], [2.0, 0, 0], [0, 0, 3.0])
    # A quarter of a circle in the corner, as near as a parabola comes, 3 m high.
    (cx, cy), r = CURVE_CENTRE, CURVE_RADIUS
    arc = [(cx, cy - r), (cx + r, cy - r), (cx + r, cy)]
    points = [(px, py, h) for h in (0.0, 1.5, 3.0) for px, py in arc]
    uv = [(s, h) for h in (0.0, 0.75, 1.5) for s in (0.0, 0.5, 1.0)]
    t.face(2, CURVE, points, uv, [], (-1.0, 0, 0), patch=(3, 3))

    nodes = []
    inward = t.box_planes([o, SIZE], outward=False)
    outward = t.box_planes(BOX, outward=True)
    last = len(inward) + len(outward) - 1
    bounds = struct.pack("<6i", 0, 0, 0, *(SIZE * 32).astype(int))
    for index, plane in enumerate(inward + outward):
        if index < len(inward):
            children = (index + 1, -1)  # behind a wall: leaf 0, solid
        else:
            children = (-2, index + 1 if index < last else -1)
        nodes.append(struct.pack("<3i", plane, *children) + bounds)
    leaves = [
        struct.pack("<2i", -1, 0) + bounds + struct.pack("<4i", 0, 0, 0, 0),
        struct.pack("<2i", 0, 0) + bounds + struct.pack("<4i", 0, 0, 0, 2),
    ]
    sides = [struct.pack("<2i", plane, CRATE) for plane in t.box_planes(PILLAR, outward=True)]
    clip = [
        struct.pack("<2i", plane, HIDDEN)
        for plane in t.box_planes(FENCE - [[0, 1, 0], [0] * 3], True)
    ]
    brushes = struct.pack("<3i", 0, 6, CRATE) + struct.pack("<3i", 6, 6, HIDDEN)
    contents = (1, 1, 1, 0x10000, 1)  # the clip brush stops players, not cameras
    textures = [struct.pack("<64s2i", n, 0, k) for n, k in zip(NAMES, contents, strict=True)]
    page = np.full((128, 128, 3), LIGHT, np.uint8).tobytes() if lightmaps else b""
    joined = [
        b'{ "classname" "worldspawn" }\0', b"".join(textures), b"".join(t.planes), b"".join(nodes),
        b"".join(leaves), b"", struct.pack("<2i", 0, 1), b"", brushes, b"".join(sides + clip),
        b"".join(t.vertices), struct.pack(f"<{len(t.corners)}i", *t.corners), b"",
        b"".join(t.faces), page, b"", b"",
    ]  # fmt: skip
    assert len(joined) == LUMPS
    return joined


def map_bytes(lumps: list[bytes] | None = None, version: int = 46) -> bytes:
    """A map file of these tables, in their order."""
    lumps = map_lumps() if lumps is None else lumps
    start = 8 + 8 * LUMPS
    header, content = struct.pack("<4si", b"IBSP", version), b""
    for lump in lumps:
        header += struct.pack("<2i", start + len(content), len(lump))
        content += lump
    return header + content


def picture(pixels: np.ndarray, kind: str, opacity: np.ndarray | None = None) -> bytes:
    """A picture file."""
    image = Image.fromarray(pixels)
    if opacity is not None:
        image = Image.merge("RGBA", [image] * 3 + [Image.fromarray(opacity)])
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


def game_files(**changed: bytes) -> dict[str, bytes]:
    """Files of the game by name. The crate's texture has another ending than its name says."""
    return {
        "maps/room.bsp": map_bytes(),
        "scripts/room.shader": SCRIPT,
        "textures/wall.jpg": picture(textured(1), "JPEG"),
        "textures/CRATE.png": picture(textured(2), "PNG"),
        "textures/fence_picture.tga": picture(
            np.full((64, 64), 90, np.uint8), "TGA", fence_opacity()
        ),
    } | changed


def write_game(
    folder: Path, files: Mapping[str, bytes] | None = None, name: str = "pak0.pk3"
) -> Path:
    """An archive of the game below ``folder``, at a place like a Debian package's."""
    path = folder / "usr/share/games/small/base" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in (game_files() if files is None else files).items():
            archive.writestr(file, content)
    return path
