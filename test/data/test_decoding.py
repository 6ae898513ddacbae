"""The declared size is checked before anything is decoded."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data import decoding
from superglue_ros.errors import ImageError

GREY = cv2.IMREAD_GRAYSCALE


def bmp(side: int) -> bytes:
    """1 bit per pixel, run-length coded data that ends at once."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 2, 0, 0, 256, 0)
    body = header + bytes(1024) + b"\x00\x01"
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + len(header) + 1024) + body


def png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = zlib.compress(bytes((side + 1) * 64), 9)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp() -> bytes:
    return cv2.imencode(".webp", np.zeros((16383, 16383), np.uint8))[1].tobytes()


@pytest.mark.parametrize("make", [lambda: bmp(32000), lambda: png(32000), webp])
def test_a_bomb_is_refused_before_it_takes_memory(make, tmp_path: Path) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(make())
    assert file.stat().st_size < 1 << 20
    program = f"""
import resource
import cv2
from pathlib import Path
from superglue_ros.data import decoding
from superglue_ros.errors import ImageError
data = Path({str(file)!r}).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decoding.decode(data, cv2.IMREAD_GRAYSCALE, 25_000_000)
except ImageError as error:
    assert "more than 25000000 pixels" in str(error) or "too large" in str(error), error
else:
    raise AssertionError("decoded")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 64 * 1024, grown
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".pgm", ".jp2"])
def test_every_named_format_is_decoded(ending: str) -> None:
    image = np.tile(np.arange(0, 200, 4, np.uint8), (40, 1))
    data = cv2.imencode(ending, image)[1].tobytes()
    assert decoding.declared_size(data) == (50, 40)
    found = decoding.decode(data, GREY, 2000)
    assert np.abs(found.astype(int) - image).max() < 12
    with pytest.raises(ImageError, match="50x40 has more than 1999 pixels"):
        decoding.decode(data, GREY, 1999)


@pytest.mark.parametrize("data", [b"", b"no picture", b"BM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"no data|cannot be decoded"):
        decoding.decode(data, GREY, 100)
