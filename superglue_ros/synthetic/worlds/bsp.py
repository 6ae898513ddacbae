"""The map file of id Tech 3 (IBSP, versions 46 and 47): its tables, checked.

A header of 17 (offset, length) pairs is followed by tables ("lumps") of fixed records, all
little-endian. Lengths are in map units, 32 of which are about a metre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError

VERSIONS = (46, 47)
LUMPS = (
    "entities", "textures", "planes", "nodes", "leaves", "leaf_faces", "leaf_brushes", "models",
    "brushes", "brush_sides", "vertices", "mesh_vertices", "effects", "faces", "lightmaps",
    "light_volumes", "visibility",
)  # fmt: skip
LIGHTMAP_SIDE = 128
"""Pixels of each side of a lightmap that is stored in the map."""

PLANAR, PATCH, MESH, BILLBOARD = 1, 2, 3, 4
"""Kinds of faces."""

SOLID = 0x1
"""Bit of a texture's ``contents``: its brushes are solid."""

_INDEX = np.dtype("<i4")
_BOX = [("low", "<i4", 3), ("high", "<i4", 3)]
_RECORDS = {
    "textures": np.dtype([("name", "S64"), ("flags", "<i4"), ("contents", "<i4")]),
    "planes": np.dtype([("normal", "<f4", 3), ("distance", "<f4")]),
    "nodes": np.dtype([("plane", "<i4"), ("children", "<i4", 2), *_BOX]),
    "leaves": np.dtype(
        [
            ("cluster", "<i4"), ("area", "<i4"), *_BOX, ("first_face", "<i4"), ("faces", "<i4"),
            ("first_brush", "<i4"), ("brushes", "<i4"),
        ]
    ),
    "leaf_brushes": _INDEX,
    "brushes": np.dtype([("first_side", "<i4"), ("sides", "<i4"), ("texture", "<i4")]),
    "brush_sides": np.dtype([("plane", "<i4"), ("texture", "<i4")]),
    "vertices": np.dtype(
        [
            ("position", "<f4", 3), ("texture_uv", "<f4", 2), ("light_uv", "<f4", 2),
            ("normal", "<f4", 3), ("colour", "u1", 4),
        ]
    ),
    "mesh_vertices": _INDEX,
    "faces": np.dtype(
        [
            ("texture", "<i4"), ("effect", "<i4"), ("kind", "<i4"), ("first_vertex", "<i4"),
            ("vertices", "<i4"), ("first_mesh_vertex", "<i4"), ("mesh_vertices", "<i4"),
            ("lightmap", "<i4"), ("lightmap_start", "<i4", 2), ("lightmap_size", "<i4", 2),
            ("lightmap_origin", "<f4", 3), ("lightmap_axes", "<f4", (2, 3)), ("normal", "<f4", 3),
            ("patch_size", "<i4", 2),
        ]
    ),
    "lightmaps": np.dtype(("u1", (LIGHTMAP_SIDE, LIGHTMAP_SIDE, 3))),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class BspMap:
    """Tables of a map, structured arrays with the format's fields; ``lightmaps`` (K, 128, 128, 3).

    ``nodes`` have two children: node indices, or -1 - leaf; the first is in front of ``plane``. A
    leaf with ``cluster`` < 0 is solid or outside of the map.
    """

    textures: NDArray[Any]
    planes: NDArray[Any]
    nodes: NDArray[Any]
    leaves: NDArray[Any]
    leaf_brushes: NDArray[np.int32]
    brushes: NDArray[Any]
    brush_sides: NDArray[Any]
    vertices: NDArray[Any]
    mesh_vertices: NDArray[np.int32]
    faces: NDArray[Any]
    lightmaps: NDArray[np.uint8]


def read_bsp(content: bytes, name: str) -> BspMap:
    """The map in ``content``; ``name`` is for errors.

    Raises :class:`DataError` where it is no IBSP of a known version, is truncated, or a record
    refers to one that is not there.
    """
    header = 8 + 8 * len(LUMPS)
    if content[:4] != b"IBSP":
        raise DataError(f"{name} is no IBSP map (it begins with {content[:4]!r}): leave it out")
    if len(content) < header:
        raise DataError(f"{name} is truncated within its header: fetch the file again")
    version = int.from_bytes(content[4:8], "little")
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise DataError(f"{name} is an IBSP map of version {version}, not {known}: leave it out")
    places = np.frombuffer(content, "<u4", 2 * len(LUMPS), 8).reshape(-1, 2).tolist()
    tables = {}
    for lump, (offset, length) in zip(LUMPS, places, strict=True):
        if offset + length > len(content):
            raise DataError(
                f"{name} is truncated: its {lump} end at byte {offset + length} of {len(content)}; "
                f"fetch the file again"
            )
        if lump not in _RECORDS:
            continue
        size = _RECORDS[lump].itemsize
        if length % size:
            raise DataError(
                f"{name}: its {lump} have {length} bytes, no multiple of {size}: the map is damaged"
            )
        tables[lump] = np.frombuffer(content[offset : offset + length], _RECORDS[lump])
    bsp = BspMap(**tables)
    _check_references(bsp, name)
    return bsp


def _check_references(bsp: BspMap, name: str) -> None:
    """Raise :class:`DataError` where an index leads out of its table."""
    children = bsp.nodes["children"]
    faces, leaves, brushes = bsp.faces, bsp.leaves, bsp.brushes
    single = {
        "plane of a node": (bsp.nodes["plane"], bsp.planes),
        "node": (children[children >= 0], bsp.nodes),
        "leaf": (-1 - children[children < 0], bsp.leaves),
        "brush of a leaf": (bsp.leaf_brushes, brushes),
        "texture of a brush": (brushes["texture"], bsp.textures),
        "plane of a brush": (bsp.brush_sides["plane"], bsp.planes),
        "texture of a face": (faces["texture"], bsp.textures),
    }
    for what, (indices, table) in single.items():
        if len(indices) and (indices.min() < 0 or indices.max() >= len(table)):
            raise DataError(f"{name} refers to a {what} that is not there: the map is damaged")
    # A child comes after its node, so that no walk down the tree can go in a circle.
    if (children <= np.arange(len(children))[:, None])[children >= 0].any():
        raise DataError(f"{name} has a tree that goes in circles: the map is damaged")
    spans = {
        "vertices of a face": (faces["first_vertex"], faces["vertices"], bsp.vertices),
        "mesh vertices of a face": (
            faces["first_mesh_vertex"], faces["mesh_vertices"], bsp.mesh_vertices,
        ),
        "brushes of a leaf": (leaves["first_brush"], leaves["brushes"], bsp.leaf_brushes),
        "sides of a brush": (brushes["first_side"], brushes["sides"], bsp.brush_sides),
    }  # fmt: skip
    for what, (first, count, table) in spans.items():
        ends = first.astype(np.int64) + count
        used = count != 0
        if (first[used] < 0).any() or (count < 0).any() or (ends[used] > len(table)).any():
            raise DataError(f"{name} refers to {what} that are not there: the map is damaged")
