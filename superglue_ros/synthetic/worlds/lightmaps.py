"""Lightmaps: brightness of surfaces as the map's compiler computed it.

They are in the map, or beside it as pictures ``maps/NAME/lm_0000.tga`` and so on.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.bsp import BspMap

Pages = NDArray[np.uint8]

_GREY = 128
_LONGEST = 512
_PAGE = re.compile(r"lm_(\d+)\.\w+$")


def light_pages(
    bsp: BspMap, files: GameFiles, name: str, used: NDArray[np.integer]
) -> tuple[Pages, NDArray[np.int16]]:
    """Lightmaps (K, S, S) uint8 of the map ``name`` that its faces use, and the page of each face.

    ``used`` (N,) is the page that each face names; the result (N,) int16 is its index in the
    pages, or -1 where the face or the map has none. A page whose file is missing is grey.
    """
    if len(bsp.lightmaps):
        within = (used >= 0) & (used < len(bsp.lightmaps))
        numbers, index = np.unique(used[within], return_inverse=True)
        pages = [cv2.cvtColor(bsp.lightmaps[n], cv2.COLOR_RGB2GRAY) for n in numbers]
    else:
        paths = _files(files, name)
        within = (used >= 0) & bool(paths)
        numbers, index = np.unique(used[within], return_inverse=True)
        pages = [_read(files, paths.get(int(n))) for n in numbers]
    places = np.full(len(used), -1, np.int16)
    places[within] = index
    side = min(_LONGEST, max((page.shape[0] for page in pages), default=1))
    fitted = [cv2.resize(page, (side, side), interpolation=cv2.INTER_AREA) for page in pages]
    return np.array(fitted, np.uint8).reshape(-1, side, side), places


def _files(files: GameFiles, name: str) -> dict[int, str]:
    """Files of the lightmaps beside a map by number."""
    found = {}
    for ending in (".png", ".jpg", ".tga"):
        for path in files.names(f"maps/{name.lower()}", ending):
            if number := _PAGE.search(path):
                found[int(number[1])] = path
    return found


def _read(files: GameFiles, path: str | None) -> Pages:
    pixels = files.pixels(path) if path else None
    return np.full((1, 1), _GREY, np.uint8) if pixels is None else pixels[..., 0]
