"""COLMAP's database and camera models, without COLMAP.

The tables are those of COLMAP 3.9, which every later version reads and brings up to date.
COLMAP's pixels have their origin in the corner of the top-left pixel, ours in its centre: half a
pixel is added on the way in and taken off on the way out.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import CalibrationError, DataError
from superglue_ros.geometry.camera import Camera

VERSION = 3900
MAX_IMAGES = 2147483647
HALF_PIXEL = np.float32(0.5)

# COLMAP's numbers of its camera models.
_SIMPLE_PINHOLE, _PINHOLE, _SIMPLE_RADIAL, _RADIAL, _OPENCV, _OPENCV_FISHEYE, _FULL_OPENCV = range(
    7
)
_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
MODEL_NAMES = (*_MODELS, "FULL_OPENCV")

_SCHEMA = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, params BLOB,
  prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE,
  camera_id INTEGER NOT NULL, FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE UNIQUE INDEX index_name ON images(name);
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB,
  FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB,
  FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB);
CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB, config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB, qvec BLOB,
  tvec BLOB);
"""


@dataclass(frozen=True, eq=False)
class ColmapCamera:
    """A camera in COLMAP's terms: the number of its model, and the model's ``parameters``."""

    model: int
    width: int
    height: int
    parameters: NDArray[np.float64]


def from_pycolmap(camera: Any) -> ColmapCamera:
    """A camera of pycolmap."""
    values = np.asarray(camera.params, np.float64)
    return ColmapCamera(int(camera.model), camera.width, camera.height, values)


def create(database: sqlite3.Connection) -> None:
    """COLMAP's tables in an empty database."""
    database.executescript(_SCHEMA)
    database.execute(f"PRAGMA user_version = {VERSION}")


def insert_camera(database: sqlite3.Connection, camera: ColmapCamera, calibrated: bool) -> int:
    """A new camera; returns its number. ``calibrated``: its focal length is more than a guess."""
    values = (camera.model, camera.width, camera.height, camera.parameters.tobytes(), calibrated)
    made = database.execute("INSERT INTO cameras VALUES (NULL, ?, ?, ?, ?, ?)", values)
    return int(made.lastrowid or 0)


def write_keypoints(
    database: sqlite3.Connection, image: int, keypoints: NDArray[np.float32]
) -> None:
    """The keypoints (N, 2) of an image, our pixels; they replace others."""
    points = np.ascontiguousarray(keypoints + HALF_PIXEL, np.float32)
    row = (image, *points.shape, points.tobytes())
    database.execute("INSERT OR REPLACE INTO keypoints VALUES (?, ?, ?, ?)", row)


def write_matches(
    database: sqlite3.Connection, image0: int, image1: int, index: NDArray[np.uint32]
) -> None:
    """Matches (K, 2) of keypoints of two images, ``image0`` < ``image1``; they replace others."""
    row = (pair_id(image0, image1), *index.shape, np.ascontiguousarray(index, np.uint32).tobytes())
    database.execute("INSERT OR REPLACE INTO matches VALUES (?, ?, ?, ?)", row)


def pair_id(image0: int, image1: int) -> int:
    """COLMAP's number of a pair, ``image0`` < ``image1``."""
    return image0 * MAX_IMAGES + image1


def images_of(pair: int) -> tuple[int, int]:
    """The images of :func:`pair_id`."""
    return divmod(pair, MAX_IMAGES)


def to_colmap(camera: Camera | None, width: int, height: int) -> ColmapCamera:
    """The model that says the same; of no camera COLMAP's guess, 1.2 times the longer side."""
    if camera is None:
        guess = np.array([1.2 * max(width, height), width / 2, height / 2, 0.0])
        return ColmapCamera(_SIMPLE_RADIAL, width, height, guess)
    k = camera.matrix
    pinhole = [k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5]
    if camera.model == "equidistant":
        values = np.array([*pinhole, *_padded(camera.distortion, 4)])
        return ColmapCamera(_OPENCV_FISHEYE, width, height, values)
    distortion = _padded(camera.distortion, 8)
    if not distortion[4:].any():
        return ColmapCamera(_OPENCV, width, height, np.array([*pinhole, *distortion[:4]]))
    return ColmapCamera(_FULL_OPENCV, width, height, np.array([*pinhole, *distortion]))


def from_colmap(camera: ColmapCamera) -> Camera:
    """Our camera; raises :class:`DataError` on a model that has no counterpart, or bad values."""
    values, model = camera.parameters, camera.model
    if not 0 <= model < len(MODEL_NAMES):
        raise DataError(
            f"COLMAP's camera model {model} has no counterpart: undistort the images, or take one "
            f"of {', '.join(MODEL_NAMES)}"
        )
    single = model in (_SIMPLE_PINHOLE, _SIMPLE_RADIAL, _RADIAL)
    fx, fy, cx, cy = (values[0], values[0], *values[1:3]) if single else values[:4]
    rest = values[3:] if single else values[4:]
    distortion = _padded(rest, 4) if single else rest
    try:
        return Camera(
            width=camera.width,
            height=camera.height,
            matrix=np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]),
            distortion=distortion if np.any(distortion) else np.zeros(0),
            model=_DISTORTION[model],
        )
    except CalibrationError as error:
        raise DataError(f"a camera of COLMAP: {error}") from error


_DISTORTION = (*["plumb_bob"] * 5, "equidistant", "rational_polynomial")


def _padded(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.pad(values[:size], (0, max(0, size - len(values))))
