"""A model as a scene to train on: images without distortion, depth, poses and who sees what.

The layout is MegaDepth's (:mod:`superglue_ros.data.sequences.megadepth`), so that photographs
without order are paired by the part of their points that both see.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from superglue_ros.data.sequences.megadepth import write_depth, write_scene
from superglue_ros.errors import DataError
from superglue_ros.reconstruction.depth import make_depth
from superglue_ros.reconstruction.placed import PlacedImages, covisibility

MAX_SIZE = 1024
"""Of the longer side of the scene's images, unless told otherwise."""
_IMAGES, _DEPTHS, _SCENE = "images", "depths", "scene_info/scene.npz"
_LEAST_SHARE = 0.01  # of an image's pixels that have depth, for it to be of use
_QUALITY = 95


@dataclass(frozen=True)
class SceneFigures:
    """How many images a scene had and how many have depth.

    ``share`` and ``carried_px`` are those of
    :class:`~superglue_ros.reconstruction.depth.DepthMaps`.
    """

    images: int
    with_depth: int
    share: float
    carried_px: float


def write_training_scene(
    model: Any, root: Path, output: Path, max_size: int = MAX_SIZE
) -> SceneFigures:
    """Make depth of a model (pycolmap.Reconstruction) with images below ``root``; write the scene.

    Replaces what an earlier run left in ``output``. Raises :class:`DataError` where images are
    missing, where none has depth, and where ``output`` holds something else; and
    :class:`ConfigError` without h5py.
    """
    _check_output(output, root)
    placed = PlacedImages(model, root, max_size)
    maps = make_depth(placed)
    kept = [n for n, depth in enumerate(maps.depths) if (depth > 0).mean() >= _LEAST_SHARE]
    if not kept:
        raise DataError(
            f"no image of {root} has depth: each needs two others that see the same things from 3 "
            f"to 20 degrees beside it, and texture"
        )
    for name in (_IMAGES, _DEPTHS):
        shutil.rmtree(output / name, ignore_errors=True)
    images, depths = [], []
    for number in kept:
        name = placed.images[number].name
        ending = "" if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg") else ".jpg"
        images.append(f"{_IMAGES}/{name}{ending}")
        depths.append(f"{_DEPTHS}/{name}.h5")
        (output / images[-1]).parent.mkdir(parents=True, exist_ok=True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        cv2.imwrite(str(output / images[-1]), placed.colour(number), quality)
        write_depth(output / depths[-1], maps.depths[number])
    views = [placed.images[number].view for number in kept]
    write_scene(
        output / _SCENE,
        images,
        depths,
        [(view.camera.matrix, view.T_camera_world) for view in views],
        covisibility(placed.images)[np.ix_(kept, kept)],
    )
    return SceneFigures(len(placed), len(kept), maps.share, maps.carried_px)


def _check_output(output: Path, root: Path) -> None:
    """Raise :class:`DataError` where writing the scene would replace what is no scene."""
    if root.resolve().is_relative_to(output.resolve()):
        raise DataError(f"the images {root} lie inside {output}: give another --output")
    if output.exists() and any(output.iterdir()) and not (output / _SCENE).is_file():
        raise DataError(f"{output} is not empty and no scene: give another --output")
