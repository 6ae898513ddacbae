"""The database of a reconstruction: COLMAP's tables, and what only we know, in tables beside them.

COLMAP ignores tables that it does not know. Ours hold the descriptors and scores of features as
detected, the score, offset and standard deviation of every match, and the settings all of it was
made with. Every write is one transaction: what a run that was killed has stored is whole.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import colmap
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.types import Features, FloatArray, IntArray

NEWEST = 4_999_999
"""The newest layout of COLMAP's tables that is read: that of its version 4."""

_OWN = """
CREATE TABLE IF NOT EXISTS superglue_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS superglue_features (image_id INTEGER PRIMARY KEY NOT NULL,
  rows INTEGER NOT NULL, dim INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
  detector TEXT NOT NULL, keypoints BLOB, scores BLOB, sigma_px BLOB, descriptors BLOB);
CREATE TABLE IF NOT EXISTS superglue_matches (pair_id INTEGER PRIMARY KEY NOT NULL, data BLOB);
"""


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matches of two images, ``image0`` < ``image1``, by the numbers that the store gives them.

    ``index`` (K, 2) int32; ``scores`` (K,); ``offset`` (K, 2) pixels from the keypoint of image 1
    to where refinement puts it; ``sigma_px`` (K,) standard deviation of the match.
    """

    image0: int
    image1: int
    index: IntArray
    scores: FloatArray
    offset: FloatArray
    sigma_px: FloatArray


class Store:
    """A database file; use as a context.

    Raises :class:`DataError` where the file is no database of COLMAP, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file():
            check_version(path)
        self._database = sqlite3.connect(path)
        with self._database:
            if not _tables(self._database):
                colmap.create(self._database)
            self._database.executescript(_OWN)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    # -- settings ----------------------------------------------------------------------------

    def bind(self, settings: Mapping[str, Any]) -> None:
        """Note what the contents are made with; raises :class:`DataError` where it differs."""
        noted = self.settings
        for name, value in settings.items():
            if name in noted and noted[name] != value:
                raise DataError(
                    f"{self.path} was made with {name} {json.dumps(noted[name])}, now it is "
                    f"{json.dumps(value)}: give another --output, or --overwrite"
                )
        with self._database as database:
            database.executemany(
                "INSERT OR REPLACE INTO superglue_settings VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in settings.items()],
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What was noted by :meth:`bind`."""
        rows = self._database.execute("SELECT name, value FROM superglue_settings")
        return {name: json.loads(value) for name, value in rows}

    # -- images ------------------------------------------------------------------------------

    @property
    def images(self) -> dict[str, int]:
        """Numbers of the images by their names."""
        return dict(self._database.execute("SELECT name, image_id FROM images"))

    def add_images(
        self,
        names: Sequence[str],
        cameras: Sequence[colmap.ColmapCamera],
        calibrated: Sequence[bool],
    ) -> None:
        """Add the images that are not there; those with one and the same camera object share it."""
        known, made = self.images, dict[int, int]()
        with self._database as database:
            for name, camera, certain in zip(names, cameras, calibrated, strict=True):
                if name in known:
                    continue
                if id(camera) not in made:
                    made[id(camera)] = self._camera(camera, certain)
                values = (name, made[id(camera)])
                database.execute("INSERT INTO images VALUES (NULL, ?, ?)", values)

    def _camera(self, camera: colmap.ColmapCamera, calibrated: bool) -> int:
        """The number of an equal camera that is there, else of a new one."""
        values = (camera.model, camera.width, camera.height, camera.parameters.tobytes())
        found = self._database.execute(
            "SELECT camera_id FROM cameras WHERE model = ? AND width = ? AND height = ? "
            "AND params = ? AND prior_focal_length = 1",
            values,
        ).fetchone()
        return found[0] if found else colmap.insert_camera(self._database, camera, calibrated)

    def camera(self, image: int) -> Camera:
        """The camera of an image as the database has it."""
        query = (
            "SELECT model, width, height, params FROM cameras NATURAL JOIN images "
            "WHERE image_id = ?"
        )
        model, width, height, data = self._database.execute(query, (image,)).fetchone()
        values = np.frombuffer(data, np.float64)
        return colmap.from_colmap(colmap.ColmapCamera(model, width, height, values))

    # -- features ----------------------------------------------------------------------------

    def described(self) -> set[int]:
        """Images that have features of ours."""
        rows = self._database.execute("SELECT image_id FROM superglue_features")
        return {image for (image,) in rows}

    def write_features(self, features: Mapping[int, Features]) -> None:
        """Features of images; descriptors are kept in half precision."""
        with self._database as database:
            for image, one in features.items():
                colmap.write_keypoints(database, image, one.keypoints)
                descriptors = one.descriptors
                data = b"" if descriptors is None else descriptors.astype(np.float16).tobytes()
                values = (image, len(one), one.descriptor_dim, one.width, one.height, one.detector)
                arrays = (one.keypoints.tobytes(), one.scores.tobytes(), one.sigma_px.tobytes())
                database.execute(
                    "INSERT OR REPLACE INTO superglue_features VALUES (?,?,?,?,?,?,?,?,?,?)",
                    (*values, *arrays, data),
                )

    def features(self, image: int) -> Features:
        """The features of an image, as detected."""
        query = "SELECT * FROM superglue_features WHERE image_id = ?"
        row = self._database.execute(query, (image,)).fetchone()
        if row is None:
            raise DataError(f"{self.path} has no features of image {image}: run it again")
        _, count, dim, width, height, detector, *blobs = row
        keypoints, scores, sigma = (np.frombuffer(blob, np.float32) for blob in blobs[:3])
        descriptors = np.frombuffer(blobs[3], np.float16).astype(np.float32)
        return Features(
            keypoints=keypoints.reshape(count, 2).copy(),
            scores=scores.copy(),
            width=width,
            height=height,
            detector=detector,
            descriptors=descriptors.reshape(count, dim) if dim else None,
            sigma_px=sigma.copy(),
        )

    def keypoints(self, image: int) -> FloatArray:
        """The keypoints (N, 2) that COLMAP has of an image, our pixels."""
        query = "SELECT rows, cols, data FROM keypoints WHERE image_id = ?"
        row = self._database.execute(query, (image,)).fetchone()
        if row is None:
            return np.zeros((0, 2), np.float32)
        points = np.frombuffer(row[2], np.float32).reshape(row[0], row[1])[:, :2]
        return np.asarray(points - colmap.HALF_PIXEL, np.float32)

    # -- matches -----------------------------------------------------------------------------

    def matched(self) -> set[tuple[int, int]]:
        """Pairs of images that have been matched, with success or without."""
        rows = self._database.execute("SELECT pair_id FROM matches")
        return {colmap.images_of(pair) for (pair,) in rows}

    def write_matches(self, pairs: Iterable[PairMatches]) -> None:
        """Matches of pairs."""
        with self._database as database:
            for one in pairs:
                index = one.index.astype(np.uint32)
                colmap.write_matches(database, one.image0, one.image1, index)
                data = np.column_stack([one.scores, one.offset, one.sigma_px]).astype(np.float32)
                values = (colmap.pair_id(one.image0, one.image1), data.tobytes())
                database.execute("INSERT OR REPLACE INTO superglue_matches VALUES (?, ?)", values)

    def matches(self, image0: int, image1: int) -> PairMatches:
        """The matches of a pair that has been matched here."""
        number = (colmap.pair_id(image0, image1),)
        query = (
            "SELECT m.data, s.data FROM matches m JOIN superglue_matches s USING (pair_id) "
            "WHERE pair_id = ?"
        )
        index, data = self._database.execute(query, number).fetchone()
        values = np.frombuffer(data, np.float32).reshape(-1, 4)
        return PairMatches(
            image0=image0,
            image1=image1,
            index=_indices(index).astype(np.int32),
            scores=values[:, 0],
            offset=values[:, 1:3],
            sigma_px=values[:, 3],
        )

    def verified(self) -> Iterator[tuple[int, int, NDArray[np.uint32]]]:
        """The pairs with verified matches (K, 2), K > 0."""
        query = "SELECT pair_id, data FROM two_view_geometries WHERE rows > 0 ORDER BY pair_id"
        for pair, data in self._database.execute(query):
            yield (*colmap.images_of(pair), _indices(data))

    def move_keypoints(self, keypoints: Mapping[int, FloatArray]) -> None:
        """New pixels (N, 2) of images' keypoints for COLMAP; features stay as detected."""
        with self._database as database:
            for image, points in keypoints.items():
                colmap.write_keypoints(database, image, points)

    def counts(self) -> dict[str, int]:
        """``images``, ``keypoints``, ``pairs``, ``matches``, ``verified_pairs``, ``inliers``."""
        queries = {
            "images": "SELECT count(*) FROM images",
            "keypoints": "SELECT coalesce(sum(rows), 0) FROM keypoints",
            "pairs": "SELECT count(*) FROM matches",
            "matches": "SELECT coalesce(sum(rows), 0) FROM matches",
            "verified_pairs": "SELECT count(*) FROM two_view_geometries WHERE rows > 0",
            "inliers": "SELECT coalesce(sum(rows), 0) FROM two_view_geometries",
        }
        return {n: int(self._database.execute(q).fetchone()[0]) for n, q in queries.items()}


def check_version(path: Path) -> None:
    """Raise :class:`DataError` unless the file is a database of COLMAP that is understood here."""
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            tables = _tables(database)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise DataError(f"{path} is no database of COLMAP: {error}") from error
    needed = {"cameras", "images", "keypoints", "matches", "two_view_geometries"}
    if tables and not needed <= tables:
        raise DataError(
            f"{path} is no database of COLMAP: it has no table {', '.join(sorted(needed - tables))}"
        )
    if version > NEWEST:
        raise DataError(
            f"{path} is of COLMAP's database version {version}, newer than the {NEWEST // 1000000}."
            f"x that is read here: export it with that COLMAP, or update pycolmap"
        )


def _tables(database: sqlite3.Connection) -> set[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in rows}


def _indices(data: bytes | None) -> NDArray[np.uint32]:
    return np.frombuffer(data or b"", np.uint32).reshape(-1, 2)
