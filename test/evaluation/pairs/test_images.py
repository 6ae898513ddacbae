from __future__ import annotations

import os
import resource
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.images import list_images, read_grey


def test_an_exif_orientation_is_not_applied(tmp_path):
    # Pairs files say themselves how to turn an image; turning it twice would be wrong.
    picture = Image.fromarray(np.tile(np.arange(0, 240, 4, np.uint8), (40, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees to see it upright"
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert read_grey(tmp_path / "a.jpg").shape == (40, 60)


def test_images_are_found_in_order_and_bad_ones_are_named(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "1.JPG", "3.pgm"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    names = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)]
    assert names == ["1.JPG", "3.pgm", "b/2.png"]
    (tmp_path / "4.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="cannot be read"):
        read_grey(tmp_path / "4.png")
    with pytest.raises(DataError, match="does not exist"):
        read_grey(tmp_path / "5.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images below"):
        list_images(tmp_path / "empty")


def test_a_bomb_a_fifo_and_a_damaged_image_are_named_and_take_no_memory(tmp_path):
    # A BMP of 1 bit per pixel whose run-length code ends at once: 1 kB that declare a gigapixel.
    header = struct.pack("<IiiHHIIiiII", 40, 32000, 32000, 1, 8, 1, 2, 0, 0, 256, 0)
    body = header + bytes(1024) + b"\x00\x01"
    head = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + len(header) + 1024)
    (tmp_path / "bomb.bmp").write_bytes(head + body)
    cv2.imwrite(str(tmp_path / "cut.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:20])
    os.mkfifo(tmp_path / "fifo.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, said in (
        ("bomb.bmp", "far too large"),
        ("cut.png", "cannot be decoded"),
        ("fifo.png", "no regular file"),
    ):
        with pytest.raises(DataError, match=rf"{name}.*{said}"):
            read_grey(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
