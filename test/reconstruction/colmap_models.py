"""COLMAP models of known cameras and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.colmap import HALF_PIXEL, to_colmap
from superglue_ros.geometry.camera import Camera
from superglue_ros.reconstruction.mapper import require_pycolmap

Array = NDArray[np.float64]


def model_of(
    camera: Camera,
    poses: Sequence[Array],
    points: Array,
    pixels: Sequence[Array],
    visible: NDArray[np.bool_],
) -> Any:
    """pycolmap's model of ``1.png``, ``2.png``, ... at ``poses`` (``T_world_camera``).

    Image k sees ``points[visible[k]]`` at ``pixels[k]``.
    """
    pycolmap = require_pycolmap()
    model = pycolmap.Reconstruction()
    values = to_colmap(camera, camera.width, camera.height)
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            camera_id=1,
            model=pycolmap.CameraModelId(values.model),
            width=camera.width,
            height=camera.height,
            params=values.parameters,
        )
    )
    for number, (pose, seen) in enumerate(zip(poses, pixels, strict=True), 1):
        inverse = np.linalg.inv(pose)
        image = pycolmap.Image(f"{number}.png", seen + HALF_PIXEL, 1, number)
        turn = pycolmap.Rotation3d(inverse[:3, :3])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(turn, inverse[:3, 3]))
    places = np.cumsum(visible, axis=1) - 1
    for index, point in enumerate(points):
        track = pycolmap.Track()
        for image in np.flatnonzero(visible[:, index]):
            track.add_element(int(image) + 1, int(places[image, index]))
        model.add_point3D(point, track)
    return model
