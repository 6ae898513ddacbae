"""SuperTuxKart's meshes (``.spm``): the buffers of triangles of a static model, checked.

A header (magic, version and kind, flags, bounds), pairs of texture names, and buffers of vertices
and indices, all little-endian. Parts of a vertex are there by flag and by name: normal (10 bits
signed for each axis), colour (one byte 128 for white, or 255 and three values), coordinates of up
to two textures (halves), tangent. Lengths are metres; axes are left-handed, y up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError

Floats = NDArray[np.float32]

_STATIC = 0x0A  # version 1 in the upper bits, static in the lower three
_NORMALS, _COLOURS, _TANGENTS = 1, 2, 4
_WHITE = 128
_HEADER = 28  # magic, kind, flags and bounds
_MOST_VERTICES = 1 << 16  # that an index of two bytes reaches


@dataclass(frozen=True, eq=False)
class SpmBuffer:
    """Triangles (T, 3) int32 with one texture, '' for none.

    Of every vertex: ``positions`` (V, 3) [m], ``normals`` (V, 3), 0 where the file has none,
    ``colour`` (V,) grey value in [0, 1], ``uv`` (V, 2), where 1 is the picture's far edge.
    """

    texture: str
    positions: Floats
    normals: Floats
    colour: Floats
    uv: Floats
    triangles: NDArray[np.int32]


def read_spm(content: bytes, name: str) -> list[SpmBuffer]:
    """The buffers of the model in ``content``; ``name`` is for errors.

    Raises :class:`DataError` where it is no static model of version 1, is truncated, or refers to
    what is not there.
    """
    if content[:2] != b"SP":
        raise DataError(f"{name} is no SPM model (it begins with {content[:2]!r}): leave it out")
    if len(content) > 2 and content[2] != _STATIC:
        raise DataError(f"{name} is an SPM model of kind {content[2]:#x}, not static: leave it out")
    try:
        return _buffers(content, name)
    except (struct.error, IndexError) as error:
        raise DataError(
            f"{name} is truncated at {len(content)} bytes: fetch the file again"
        ) from error


def _buffers(content: bytes, name: str) -> list[SpmBuffer]:
    flags = content[3]
    (count,) = struct.unpack_from("<H", content, _HEADER)
    at, textures = _HEADER + 2, []
    for _ in range(count):
        pair = []
        for _ in range(2):
            end = at + 1 + content[at]
            pair.append(content[at + 1 : end].decode("latin-1"))
            at = end
        textures.append(pair)
    sectors, count = struct.unpack_from("<2H", content, at)
    if sectors != 1:
        raise DataError(f"{name} has {sectors} sectors, which must be 1: leave it out")
    at, buffers = at + 4, []
    for _ in range(count):
        vertices, indices, material = struct.unpack_from("<2IH", content, at)
        if material >= len(textures) or vertices > _MOST_VERTICES or indices % 3:
            raise DataError(
                f"{name} has a buffer of {vertices} vertices and {indices} indices with texture "
                f"{material} of {len(textures)}: the model is damaged"
            )
        buffer, at = _buffer(content, at + 10, vertices, indices, textures[material], flags)
        corners, positions = buffer.triangles, buffer.positions
        if (corners.size and corners.max() >= vertices) or not np.isfinite(positions).all():
            raise DataError(f"{name} has vertices that are not there: the model is damaged")
        buffers.append(buffer)
    return buffers


def _buffer(
    content: bytes, at: int, count: int, indices: int, textures: list[str], flags: int
) -> tuple[SpmBuffer, int]:
    """A buffer that begins at byte ``at``, and where it ends."""
    head = 12 + 4 * bool(flags & _NORMALS)
    layers = bool(textures[0]) + bool(textures[0] and textures[1])
    tail = 4 * (layers + bool(flags & _TANGENTS and textures[0]))
    colours = np.zeros(count, np.int64)  # bytes that each colour takes
    if flags & _COLOURS:
        place = at + head
        for vertex in range(count):
            colours[vertex] = 1 if content[place] == _WHITE else 4
            place += int(colours[vertex]) + tail + head
    ends = at + np.cumsum(colours + head + tail)
    starts = ends - colours - head - tail
    end = int(ends[-1]) if count else at
    width = 1 if count <= 255 else 2
    if end + width * indices > len(content):
        raise IndexError
    data = np.frombuffer(content, np.uint8)
    first = data[starts[:, None] + np.arange(head)]
    normals = np.zeros((count, 3), np.float32)
    if flags & _NORMALS:
        packed = first[:, 12:16].copy().view("<u4")
        axes = (packed >> np.array([0, 10, 20], np.uint32) & 1023).astype(np.int32)
        normals = ((axes ^ 512) - 512).astype(np.float32) / 511  # signed
    colour = np.ones(count, np.float32)
    dyed = colours == 4
    colour[dyed] = data[starts[dyed, None] + head + [1, 2, 3]].mean(axis=1) / 255
    uv = np.zeros((count, 2), np.float32)
    if layers:
        places = (starts + head + colours)[:, None] + np.arange(4)
        uv = np.nan_to_num(data[places].view("<f2").astype(np.float32), posinf=0, neginf=0)
    corners = np.frombuffer(content, f"<u{width}", indices, end).astype(np.int32)
    return (
        SpmBuffer(
            texture=textures[0],
            positions=first[:, :12].copy().view("<f4").astype(np.float32),
            normals=normals,
            colour=colour,
            uv=uv,
            triangles=corners.reshape(-1, 3),
        ),
        end + width * indices,
    )
