"""A map to localize in: the images of a COLMAP model with their features and 3D points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config
from superglue_ros.data.colmap import from_colmap, from_pycolmap
from superglue_ros.data.image import resize
from superglue_ros.errors import DataError, DescriptorKindError
from superglue_ros.evaluation.pairs.images import read_grey
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.reconstruction.mapper import poses_of, require_pycolmap
from superglue_ros.reconstruction.run import DATABASE, MODELS
from superglue_ros.reconstruction.store import Store
from superglue_ros.rig import Rig
from superglue_ros.settings import build, override
from superglue_ros.types import Features, FloatArray, FrameId

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MapImage:
    """An image of the map.

    ``features`` as detected; ``keypoints`` (N, 2) pixels as the map has them; ``point_ids`` (N,)
    int64 of the 3D point at each keypoint, -1 = none; ``T_map_camera`` (4, 4).
    """

    name: str
    features: Features
    keypoints: FloatArray
    point_ids: NDArray[np.int64]
    T_map_camera: Array


class SceneMap:
    """The largest model of a reconstruction, or the one of ``number``.

    Raises :class:`DataError` where the folder holds no map, or one without descriptors.
    """

    def __init__(self, folder: Path, number: int = 0) -> None:
        pycolmap = require_pycolmap()
        model_folder, database = folder / MODELS / str(number), folder / DATABASE
        if not model_folder.is_dir() or not database.is_file():
            raise DataError(
                f"{folder} is no map: give the --output folder of `superglue-ros reconstruct`"
            )
        try:
            model = pycolmap.Reconstruction(model_folder)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise DataError(f"{model_folder} is no model of COLMAP: {error}") from error
        with Store(database) as store:
            self.settings = store.settings
            self.images = _images(model, store)
        self.points = {int(n): np.asarray(p.xyz) for n, p in model.points3D.items()}
        self.cameras = {
            name: from_colmap(
                from_pycolmap(model.cameras[model.find_image_with_name(name).camera_id])
            )
            for name in self.images
        }
        if not any(image.features.descriptors is not None for image in self.images.values()):
            raise DataError(f"{folder} has no descriptors: make the map from images, not matches")

    @property
    def detector(self) -> str:
        """Kind of the map's descriptors."""
        return next(iter(self.images.values())).features.detector

    def config(self, given: Sequence[str]) -> Config:
        """The map's own settings of front-end and matcher, and ``given`` NAME=VALUE over them."""
        own: dict[str, Any] = {}
        for name, value in self.settings.items():
            section, _, leaf = name.partition(".")
            if leaf:
                own.setdefault(section, {})[leaf] = value
            elif name == "refinement":
                own[name] = value
        return build(Config, override(own, given))


class EncodedMap:
    """The images of a map ready to be matched, and found by their likeness."""

    def __init__(self, scene: SceneMap, rig: Rig) -> None:
        if rig.front_end.detector != scene.detector:
            raise DescriptorKindError(
                f"the map's descriptors are {scene.detector!r}, the front-end makes "
                f"{rig.front_end.detector!r}: take the front-end and weights of the map"
            )
        self.scene, self._rig = scene, rig
        pooled = {name: rig.pool(image.features) for name, image in scene.images.items()}
        self._names = [name for name, one in pooled.items() if one is not None]
        self._global = np.stack([pooled[name] for name in self._names])  # type: ignore[misc]
        self._kept: dict[str, Keyframe] = {}

    def most_similar(self, descriptor: FloatArray | None, count: int) -> list[str]:
        """Names of the ``count`` images most like a global descriptor; none where it is None."""
        if descriptor is None:
            return []
        order = np.argsort(-(self._global @ descriptor), kind="stable")[:count]
        return [self._names[place] for place in order]

    def __getitem__(self, name: str) -> Keyframe:
        """An image of the map, with its pixels where its file is still there."""
        if name not in self._kept:
            image, config = self.scene.images[name], self._rig.config
            file = Path(self.scene.settings.get("images", "")) / name
            refine = config.refinement != "none" and not self._rig.front_end.exact
            pixels = None
            if refine and file.is_file():
                pixels = resize(read_grey(file), config.front_end.max_size)
            number = FrameId(id=len(self._kept))
            raw = Keyframe(id=number, features=image.features, prepared=None, resized=pixels)
            self._kept[name] = self._rig.prepare(raw)
        return self._kept[name]


def _images(model: Any, store: Store) -> dict[str, MapImage]:
    numbers, described, poses = store.images, store.described(), poses_of(model)
    images = {}
    for name, pose in poses.items():
        if name not in numbers or numbers[name] not in described:
            raise DataError(
                f"{store.path} has no features of {name}: make the map from images with "
                f"`superglue-ros reconstruct`"
            )
        number = numbers[name]
        points = model.find_image_with_name(name).points2D
        ids = [p.point3D_id if p.has_point3D() else -1 for p in points]
        keypoints = store.keypoints(number)
        images[name] = MapImage(
            name=name,
            features=store.features(number),
            keypoints=keypoints,
            point_ids=np.array(ids, np.int64),
            T_map_camera=pose,
        )
        if len(ids) != len(keypoints):
            raise DataError(f"the model's image {name} and {store.path} are of different runs")
    return images
