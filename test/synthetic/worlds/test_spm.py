"""The model file: what each flag brings, and what is refused."""

import random
import struct

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.spm import read_spm

from .small_track import Buffer, spm


def strip(count: int, texture: int = 0) -> Buffer:
    """A buffer of ``count`` vertices, each of its own values."""
    rng = np.random.default_rng(count)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Buffer(
        texture,
        [tuple(row) for row in rng.uniform(-9, 9, (count, 3))],
        [tuple(row) for row in normals],
        [(k / 64, 2 - k / 64) for k in range(count)],
        [k % count for k in range(3 * (count - 2))],
        [(255, 255, 255) if k % 3 else (k % 200, 40, 60) for k in range(count)],
    )


TEXTURES = [("a.png", ""), ("b.png", "lit.png"), ("", "")]


@pytest.mark.parametrize("flags", range(8))
def test_every_part_of_a_vertex_is_as_written(flags):
    written = [strip(5), strip(255, 1), strip(256, 2), strip(4, 1)]  # 256: indices of two bytes
    read = read_spm(spm(TEXTURES, written, flags), "a.spm")
    assert [buffer.texture for buffer in read] == ["a.png", "b.png", "", "b.png"]
    for buffer, known in zip(read, written, strict=True):
        np.testing.assert_allclose(buffer.positions, known.positions, rtol=1e-6)
        np.testing.assert_array_equal(buffer.triangles.ravel(), known.corners)
        normals = known.normals if flags & 1 else np.zeros_like(known.normals)
        np.testing.assert_allclose(buffer.normals, normals, atol=1.1e-3)
        greys = np.mean(known.colours, axis=1) / 255 if flags & 2 else 1.0
        np.testing.assert_allclose(buffer.colour, greys, atol=1e-6)
        uv = known.uv if buffer.texture else np.zeros_like(known.uv)
        np.testing.assert_allclose(buffer.uv, uv, atol=2e-3)  # halves


@pytest.mark.parametrize("flags", [0, 3, 7])
def test_a_file_that_ends_anywhere_is_refused(flags):
    content = spm(TEXTURES, [strip(4), strip(3, 1)], flags)
    for end in range(2, len(content)):
        with pytest.raises(DataError, match=rf"a\.spm is truncated at {end} bytes: fetch"):
            read_spm(content[:end], "a.spm")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"a\.spm is no SPM model \(it begins with b''\): leave it out"),
        (b"IBSP" + bytes(90), "is no SPM model"),
        (b"SP\x09" + bytes(90), "kind 0x9, not static: leave it out"),
        (spm(TEXTURES, [strip(4)], sectors=2), "has 2 sectors, which must be 1"),
        (spm(TEXTURES, [strip(4, 7)]), "texture 7 of 3: the model is damaged"),
    ],
)
def test_what_is_no_static_model_is_refused(content, what):
    with pytest.raises(DataError, match=what):
        read_spm(content, "a.spm")


def test_absurd_counts_and_references_are_refused():
    content = spm([("", "")], [strip(4)], 0)
    start = 28 + 2 + 2 + 4
    for at, value, what in (
        (start, 1 << 31, "a buffer of 2147483648 vertices"),
        (start + 4, 7, "4 vertices and 7 indices"),
        (start + 4, 3 << 30, "truncated"),
        (start + 10, 0x7F800000, "vertices that are not there"),  # infinity
        (len(content) - 4, 0x09090909, "vertices that are not there"),
    ):
        damaged = bytearray(content)
        struct.pack_into("<I", damaged, at, value)
        with pytest.raises(DataError, match=what):
            read_spm(bytes(damaged), "a.spm")


def test_any_bytes_give_buffers_or_a_typed_error():
    rng, content = random.Random(0), spm(TEXTURES, [strip(6), strip(5, 1)], 7)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(2, len(damaged))] = rng.randrange(256)
        try:
            buffers = read_spm(bytes(damaged), "a.spm")
        except DataError:
            continue
        for buffer in buffers:
            assert np.isfinite(buffer.positions).all()
            assert not buffer.triangles.size or buffer.triangles.max() < len(buffer.positions)
