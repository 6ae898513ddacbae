"""Reading images for evaluation: grey, upright only where asked, never silently skipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import decoding
from superglue_ros.errors import DataError, ImageError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"})


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A grey (H, W) uint8 image as stored: an EXIF orientation tag is not applied.

    Pairs files and calibrations refer to the stored pixels. Raises :class:`DataError` naming the
    file if it is missing, no image, or too large (``data/decoding.py``).
    """
    try:
        image = decoding.read(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except ImageError as error:
        raise DataError(str(error)) from error
    return np.asarray(image, np.uint8)


def list_images(folder: Path) -> list[Path]:
    """All images below a folder in sorted order; raises :class:`DataError` where there are none."""
    if not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not found:
        raise DataError(f"no images below {folder}: known endings are {', '.join(sorted(ENDINGS))}")
    return found


def listed_images(folder: Path, file: Path) -> list[Path]:
    """The images a text file names, one path relative to ``folder`` per line, # for comments.

    They need not exist: a missing one is reported with its pairs. Raises :class:`DataError`.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"image list {file} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"image list {file} names no image")
    return [folder / name for name in names]
