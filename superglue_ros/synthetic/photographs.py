"""The photographs that come inside scikit-image's wheel, for demonstrations and checks.

They are in the public domain, CC0 or without known copyright restrictions.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from superglue_ros.errors import DataError

FILES = {
    "brick": "brick.png",
    "gravel": "gravel.png",
    "grass": "grass.png",
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "camera": "camera.png",
    "coins": "coins.png",
    "hubble": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "moon": "moon.png",
    "page": "page.png",
}


def photograph(name: str) -> NDArray[np.uint8]:
    """One of :data:`FILES`, (H, W, 3) BGR. Raises :class:`DataError` without scikit-image."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise DataError(
            "the built-in photographs are scikit-image's, which is not installed: run "
            "`pip install scikit-image`, or give images of your own"
        )
    file = Path(package.origin).parent / "data" / FILES[name]
    if not file.is_file():
        raise DataError(f"{file} is missing: reinstall scikit-image")
    with Image.open(file) as picture:
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
