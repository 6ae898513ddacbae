"""The rolling shutter of a sequence, found from its map alone, and a map without it.

Where rows are exposed one after the other and the camera turns, a map explains the pixels almost as
well as if they had been exposed at once, but bends: scale and directions drift. The motion of each
image follows from the poses of the images before and after it, so that one number is unknown, the
readout time; the right one is where the adjusted map fits the pixels best (Brent's method). The
pixels of the observations are then those of a global shutter, and so is the map.

:mod:`superglue_ros.geometry.rolling_shutter` has the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from superglue_ros.data.colmap import HALF_PIXEL, from_colmap, from_pycolmap
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.progress import console
from superglue_ros.geometry.rolling_shutter import Motion, global_shutter_shift, motions_along
from superglue_ros.reconstruction.mapper import drop_outliers, poses_of, require_pycolmap

_LEAST_IMAGES = 8
_LONGEST_READOUT = 0.3  # of the median interval of the images
_LEAST_GAIN = 0.01  # of the cost: less is noise, or another error of the camera model
_ACCURACY = 0.004  # of the median interval

Adjust = Callable[[Any], float]


@dataclass(frozen=True, eq=False)
class Shutter:
    """``readout_s`` from the first row to the last; ``cost`` of an observation without and with it.

    ``model``: pycolmap's, without the rolling shutter, or as it was where nothing is gained; then
    ``readout_s`` is 0.
    """

    model: Any
    readout_s: float
    cost_before: float
    cost_after: float


def without_rolling_shutter(
    model: Any, stamps_ns: Mapping[str, int], adjust: Adjust, readout_s: float | None = None
) -> Shutter | None:
    """The model with the pixels of a global shutter, adjusted anew.

    ``stamps_ns`` of the images by name; ``adjust`` a model in place, and return its cost;
    ``readout_s`` where it is known, else it is estimated, and taken where the cost falls by at
    least 1 %. None where too few images have others before or after them.
    """
    given = readout_s is not None
    search = _Search(model, stamps_ns, adjust)
    if not search.enough:
        return None
    with console.status("rolling shutter"):
        before = search.cost(0.0)
        readout_s = search.minimum() if readout_s is None else readout_s
        after = search.cost(readout_s)
        if after > (1 - _LEAST_GAIN) * before and not given:
            return Shutter(model, 0.0, before, before)
        drop_outliers(search.best)
        search.cost(readout_s)
    return Shutter(search.best, readout_s, before, after)


class _Search:
    """Costs of readout times; ``best`` is the adjusted model of the one tried last or best."""

    def __init__(self, model: Any, stamps_ns: Mapping[str, int], adjust: Adjust) -> None:
        self.best = require_pycolmap().Reconstruction(model)
        self._adjust, self._stamps = adjust, stamps_ns
        self._pixels = {
            number: np.array([p.xy for p in model.images[number].points2D]).reshape(-1, 2)
            for number in model.reg_image_ids()
        }
        stamps = np.sort([stamps_ns[name] for name in poses_of(model)])
        self._interval_s = float(np.median(np.diff(stamps))) * 1e-9 if len(stamps) > 1 else 0.0
        self.enough = self._interval_s > 0 and len(self._motions()) >= _LEAST_IMAGES

    def minimum(self) -> float:
        """The readout time of least cost."""
        limit = _LONGEST_READOUT * self._interval_s
        least = np.inf

        def tried(readout_s: float) -> float:
            nonlocal least
            kept = self.best
            cost = self.cost(readout_s)
            if cost < least:
                least = cost
            else:
                self.best = kept
            return cost

        options = {"xatol": _ACCURACY * self._interval_s}
        found = minimize_scalar(tried, bounds=(-limit, limit), method="bounded", options=options)
        return float(found.x)

    def cost(self, readout_s: float) -> float:
        """Of an observation in the adjusted model, with the motions of the best one so far."""
        motions = self._motions()
        trial = require_pycolmap().Reconstruction(self.best)
        for number, pixels in self._pixels.items():
            image = trial.images[number]
            shift = self._shift(image, pixels, motions.get(image.name), readout_s)
            for point, xy in zip(image.points2D, pixels + shift, strict=True):
                point.xy = xy
        self.best = trial
        return self._adjust(trial)

    def _shift(
        self, image: Any, pixels: NDArray[np.float64], motion: Motion | None, readout_s: float
    ) -> NDArray[np.float64]:
        shift = np.zeros_like(pixels)
        seen = [k for k, point in enumerate(image.points2D) if point.has_point3D()]
        if motion is None or not seen:
            return shift
        points = np.stack([self.best.points3D[image.points2D[k].point3D_id].xyz for k in seen])
        T_camera_world = image.cam_from_world().matrix()
        local = points @ T_camera_world[:, :3].T + T_camera_world[:, 3]
        camera = from_colmap(from_pycolmap(self.best.cameras[image.camera_id]))
        rows = pixels[seen, 1] - HALF_PIXEL
        shift[seen] = global_shutter_shift(local, rows, camera, motion, readout_s)
        return shift

    def _motions(self) -> dict[str, Motion]:
        """By image, for those that have another one shortly before or after."""
        poses = poses_of(self.best)
        names = sorted(poses, key=lambda name: self._stamps[name])
        stamps_s = np.array([self._stamps[name] for name in names]) * 1e-9
        found = motions_along(stamps_s, [poses[name] for name in names])
        return {name: one for name, one in zip(names, found, strict=True) if one is not None}


def parse_readout(word: str) -> float | None:
    """``auto`` (None), ``off`` (0) or seconds; raises :class:`ConfigError`."""
    if word == "auto":
        return None
    try:
        value = 0.0 if word == "off" else float(word)
    except ValueError:
        value = np.nan
    if not -1 < value < 1:
        raise ConfigError(
            f"--rolling-shutter {word}: give auto, off, or the seconds from the first row to the "
            "last, as in 0.016"
        )
    return value
