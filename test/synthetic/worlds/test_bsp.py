"""The map file: every table, and what is refused."""

import struct

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.bsp import LUMPS, read_bsp

from .small_map import LIGHT, NAMES, map_bytes, map_lumps

CONTENT = map_bytes()
FILLED = [index for index, lump in enumerate(map_lumps()) if lump]


def test_tables_are_as_written():
    bsp = read_bsp(CONTENT, "room")
    assert [t["name"].split(b"\0")[0] for t in bsp.textures] == list(NAMES)
    assert len(bsp.nodes) == 12
    assert bsp.leaves["cluster"].tolist() == [-1, 0]
    assert bsp.faces["kind"].tolist().count(2) == 1
    assert len(bsp.vertices) == 4 * (len(bsp.faces) - 1) + 9
    np.testing.assert_array_equal(bsp.vertices["position"].max(axis=0), [256, 192, 128])
    assert bsp.lightmaps.shape == (1, 128, 128, 3)
    assert (bsp.lightmaps == LIGHT).all()
    assert bsp.brushes["sides"].tolist() == [6, 6]


def test_version_47_is_read_and_others_are_not():
    assert len(read_bsp(map_bytes(version=47), "room").faces) > 10
    with pytest.raises(DataError, match=r"room is an IBSP map of version 29, not 46 and 47"):
        read_bsp(map_bytes(version=29), "room")


@pytest.mark.parametrize("content", [b"", b"IBS", b"VBSP" + CONTENT[4:], b"\0" * 400])
def test_what_is_no_ibsp_is_refused(content):
    with pytest.raises(DataError, match=r"maps/a\.bsp is no IBSP map"):
        read_bsp(content, "maps/a.bsp")


@pytest.mark.parametrize("length", [4, 8, 143])
def test_a_truncated_header_is_refused(length):
    with pytest.raises(DataError, match="truncated within its header"):
        read_bsp(CONTENT[:length], "room")


@pytest.mark.parametrize("index", FILLED, ids=lambda index: LUMPS[index])
def test_a_file_that_ends_within_any_table_is_refused(index):
    offset, length = struct.unpack_from("<2I", CONTENT, 8 + 8 * index)
    for end in (offset, offset + length // 2, offset + length - 1):
        with pytest.raises(DataError, match=rf"truncated: its {LUMPS[index]} end at byte"):
            read_bsp(CONTENT[:end], "room")


@pytest.mark.parametrize("name", ["textures", "planes", "nodes", "vertices", "faces", "lightmaps"])
def test_a_table_of_half_records_is_refused(name):
    lumps = map_lumps()
    lumps[LUMPS.index(name)] += b"\0\0\0"
    with pytest.raises(DataError, match=rf"its {name} have \d+ bytes, no multiple of"):
        read_bsp(map_bytes(lumps), "room")


@pytest.mark.parametrize(
    ("lump", "at", "value", "what"),
    [
        ("nodes", 0, 99, "a plane of a node"),
        ("nodes", 4, 99, "a node"),
        ("nodes", 8, -9, "a leaf"),
        ("leaf_brushes", 0, 7, "a brush of a leaf"),
        ("brushes", 8, 9, "a texture of a brush"),
        ("brush_sides", 0, -1, "a plane of a brush"),
        ("faces", 0, 99, "a texture of a face"),
        ("faces", 12, 10_000, "vertices of a face"),
        ("faces", 24, 1 << 30, "mesh vertices of a face"),
        ("leaves", 44, -3, "brushes of a leaf"),
        ("brushes", 4, 100, "sides of a brush"),
    ],
)
def test_a_reference_to_what_is_not_there_is_refused(lump, at, value, what):
    lumps = map_lumps()
    table = bytearray(lumps[LUMPS.index(lump)])
    struct.pack_into("<i", table, at, value)
    lumps[LUMPS.index(lump)] = bytes(table)
    with pytest.raises(DataError, match=rf"room refers to {what} that (is|are) not there"):
        read_bsp(map_bytes(lumps), "room")


def test_a_tree_that_goes_in_circles_is_refused():
    lumps = map_lumps()
    nodes = bytearray(lumps[3])
    struct.pack_into("<i", nodes, 36 * 2 + 4, 0)
    lumps[3] = bytes(nodes)
    with pytest.raises(DataError, match="goes in circles"):
        read_bsp(map_bytes(lumps), "room")
