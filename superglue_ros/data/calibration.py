"""A camera's calibration from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.data.sequences.base import read_intrinsics
from superglue_ros.errors import CalibrationError, ConfigError, DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.settings import read_yaml


def read_calibration(path: Path) -> Camera:
    """The camera of a file; raises :class:`DataError`.

    ``*.yaml``, ``*.yml`` as ROS's camera_calibration or OpenCV's FileStorage writes them
    (``image_width``, ``image_height``, ``camera_matrix``, ``distortion_coefficients``;
    ``distortion_model``, which OpenCV's lack: there it is ``equidistant`` where ``fisheye_model``
    says so, ``rational_polynomial`` with more than five coefficients, else ``plumb_bob``); any
    other file holds one line, ``width height fx fy cx cy k1 k2 p1 p2 [k3]``.
    """
    if path.suffix not in (".yaml", ".yml"):
        return read_intrinsics(path)
    try:
        values = read_yaml(path)
        width, height = int(values["image_width"]), int(values["image_height"])
        distortion = _numbers(values["distortion_coefficients"])
        usual = "plumb_bob" if len(distortion) <= 5 else "rational_polynomial"
        if values.get("fisheye_model"):
            usual = "equidistant"
        return Camera(
            width=width,
            height=height,
            matrix=_numbers(values["camera_matrix"]),
            distortion=distortion,
            model=str(values.get("distortion_model", usual)),
        )
    except (ConfigError, CalibrationError) as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no calibration as ROS's camera_calibration or OpenCV writes it: {error!r}"
        ) from error


def _numbers(entry: Any) -> Any:
    return np.array(entry["data"], np.float64)
