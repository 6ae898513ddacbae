from __future__ import annotations

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
