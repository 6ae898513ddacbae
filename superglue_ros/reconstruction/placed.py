"""The images of a model, smaller and free of lens distortion, with what of the model they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from superglue_ros.data import decoding
from superglue_ros.data.colmap import from_colmap, from_pycolmap
from superglue_ros.data.image import resize, to_grey
from superglue_ros.data.rectify import Rectification
from superglue_ros.errors import DataError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.reconstruction.mapper import require_pycolmap
from superglue_ros.reconstruction.stereo import RectifiedPair, View, rectify

Array = NDArray[np.float64]

_ANGLES_DEG = (3.0, 20.0)
_LEAST_COMMON = 20
_CACHED = 64  # images in memory


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image with its ``view``, in pixels of the smaller image without distortion.

    ``point_ids`` (K,) increasing: the model's points that it sees, at ``pixels`` (K, 2); in the
    world they are at ``points`` (K, 3).
    """

    name: str
    view: View
    point_ids: NDArray[np.int64]
    pixels: Array
    points: Array


def read_model(folder: Path) -> Any:
    """The COLMAP model (pycolmap.Reconstruction) of a folder; raises :class:`DataError`."""
    pycolmap = require_pycolmap()
    endings = (".bin", ".txt")
    if not any((folder / f"cameras{ending}").is_file() for ending in endings):
        raise DataError(
            f"{folder} is no COLMAP model: give a folder with cameras, images and points3D, such "
            f"as sparse/0 below the --output of `superglue-ros reconstruct`"
        )
    try:
        return pycolmap.Reconstruction(folder)
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"{folder} cannot be read as a COLMAP model: {error}") from error


class PlacedImages:
    """The placed images of a model whose files lie below ``root``, at most ``max_size`` pixels.

    Raises :class:`DataError` where there are fewer than three, whose depth nothing could confirm,
    a file is missing, or a camera has no counterpart.
    """

    def __init__(self, model: Any, root: Path, max_size: int) -> None:
        self._root = root
        self._max_size = max_size
        numbers = sorted(model.reg_image_ids(), key=lambda number: model.images[number].name)
        if len(numbers) < 3:
            raise DataError(
                f"the model has {len(numbers)} image: depth of one is confirmed by two others, "
                f"give a model of at least three"
            )
        names = [model.images[number].name for number in numbers]
        outside = [
            name for name in names if PurePath(name).is_absolute() or ".." in PurePath(name).parts
        ]
        if outside:
            raise DataError(f"the model's image {outside[0]} is not below any folder: rename it")
        missing = [name for name in names if not (root / name).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} images of the model are not below {root}, the first of them "
                f"{missing[0]}: give the folder that its names are relative to"
            )
        self._lenses: dict[int, tuple[Camera, Rectification]] = {}
        self._lens_of: list[int] = []
        self.images: list[PlacedImage] = []
        for number in numbers:
            image = model.images[number]
            if image.camera_id not in self._lenses:
                self._lenses[image.camera_id] = self._lens(model.cameras[image.camera_id])
            self._lens_of.append(image.camera_id)
            self.images.append(_placed(image, model, *self._lenses[image.camera_id]))
        self.grey = lru_cache(_CACHED)(self._grey)
        """Grey image (H, W) uint8 of a place in ``images``."""

    def __len__(self) -> int:
        return len(self.images)

    def colour(self, place: int) -> NDArray[np.uint8]:
        """Image (H, W, 3) BGR; raises :class:`DataError` where the file does not fit its camera."""
        path = self._root / self.images[place].name
        try:
            image = decoding.read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except ImageError as error:
            raise DataError(str(error)) from error
        camera, rectification = self._lenses[self._lens_of[place]]
        if (image.shape[1], image.shape[0]) != (camera.width, camera.height):
            raise DataError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, but its camera in the model "
                f"{camera.width}x{camera.height}: give the images that the model was made of"
            )
        small = resize(image, self._max_size).image
        return rectification.image(small) if camera.distorted else small

    def _grey(self, place: int) -> NDArray[np.uint8]:
        return to_grey(self.colour(place))

    def _lens(self, camera: Any) -> tuple[Camera, Rectification]:
        whole = from_colmap(from_pycolmap(camera))
        longest = max(whole.width, whole.height, self._max_size)
        width, height = (
            max(1, round(n * self._max_size / longest)) for n in (whole.width, whole.height)
        )
        return whole, Rectification.of(whole.resized(width, height))


def _placed(image: Any, model: Any, camera: Camera, rectification: Rectification) -> PlacedImage:
    seen = [point for point in image.points2D if point.has_point3D()]
    ids = np.array([point.point3D_id for point in seen], np.int64)
    ids, once = np.unique(ids, return_index=True)
    stored = np.array([seen[index].xy for index in once]).reshape(-1, 2) - 0.5
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().matrix()
    return PlacedImage(
        name=image.name,
        view=View(rectification.camera, pose),
        point_ids=ids,
        pixels=rectification.camera.distort(camera.rays(stored)),
        points=np.array([model.points3D[int(one)].xyz for one in ids]).reshape(-1, 3),
    )


def covisibility(images: Sequence[PlacedImage]) -> NDArray[np.float32]:
    """The part (N, N) of an image's (row's) points that another one (column) sees too."""
    shared = _common(images).astype(np.float32)
    return np.asarray(shared / np.maximum(np.diag(shared), 1)[:, None], np.float32)


def neighbours(images: Sequence[PlacedImage], most: int) -> list[dict[int, RectifiedPair]]:
    """For each image those that it is matched with for depth, at most ``most``, as rectified pairs.

    The ones with the most common points among those that see these 3 to 20 degrees apart
    (median): less is no baseline, more changes what patches look like.
    """
    shared = _common(images)
    np.fill_diagonal(shared, 0)
    chosen: list[dict[int, RectifiedPair]] = []
    for image, row in zip(images, shared, strict=True):
        fitting: dict[int, RectifiedPair] = {}
        for other in np.argsort(-row, kind="stable"):
            if len(fitting) == most or row[other] < _LEAST_COMMON:
                break
            if not _ANGLES_DEG[0] <= _angle_deg(image, images[other]) <= _ANGLES_DEG[1]:
                continue
            pair = rectify(image.view, images[other].view, image.points)
            if pair is not None:
                fitting[int(other)] = pair
        chosen.append(fitting)
    return chosen


def _common(images: Sequence[PlacedImage]) -> NDArray[np.int64]:
    """The number (N, N) of points that two images both see; on the diagonal, of one's own."""
    columns = np.concatenate([image.point_ids for image in images])
    counts = [len(image.point_ids) for image in images]
    rows = np.repeat(np.arange(len(images)), counts)
    _, columns = np.unique(columns, return_inverse=True)
    seen = csr_matrix((np.ones(len(rows), np.int64), (rows, columns)))
    return np.asarray((seen @ seen.T).toarray())


def _angle_deg(first: PlacedImage, second: PlacedImage) -> float:
    """Median angle between the rays of both to the points that both see."""
    _, place, _ = np.intersect1d(
        first.point_ids, second.point_ids, assume_unique=True, return_indices=True
    )
    rays = [first.points[place] - image.view.centre for image in (first, second)]
    units = [ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in rays]
    cosines = np.clip((units[0] * units[1]).sum(axis=1), -1, 1)
    return float(np.degrees(np.median(np.arccos(cosines))))
