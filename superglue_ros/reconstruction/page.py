"""Models as one HTML page with everything inside: points, cameras, and a small viewer in WebGL."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.reconstruction.mapper import poses_of

MOST_POINTS = 200_000
"""Points of a model in the page; of larger ones a random part, drawn with a fixed seed."""
_TEMPLATE = Path(__file__).with_name("viewer.html")


def write_page(path: Path, title: str, models: Sequence[Any]) -> None:
    """Write a page of pycolmap's models; it needs nothing but a browser with WebGL."""
    data = json.dumps([_model(number, model) for number, model in enumerate(models)])
    # In a script a name of a file must not be able to end it.
    data = data.replace("<", "\\u003c")
    page = Template(_TEMPLATE.read_text(encoding="utf-8"))
    filled = page.substitute(TITLE=html.escape(title), DATA=data)
    path.write_text(filled, encoding="utf-8")


def _model(number: int, model: Any) -> dict[str, Any]:
    points = list(model.points3D.values())
    if len(points) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        points = [points[i] for i in chosen]
    places = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    colours = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    poses = poses_of(model)
    centre, size = _extent(places, poses)
    up = -np.mean([pose[:3, 1] for pose in poses.values()], axis=0)
    length = float(np.linalg.norm(up))
    return {
        "name": f"{number}: {len(poses)} images",
        "facts": f"{len(poses)} images, {model.num_points3D()} points, mean reprojection error "
        f"{model.compute_mean_reprojection_error():.2f} px",
        "count": len(points),
        "points": _base64(places),
        "colours": _base64(colours),
        "centre": centre.tolist(),
        "size": size,
        "up": (up / length if length > 1e-3 else np.array([0.0, -1.0, 0.0])).tolist(),
        "cameras": [
            {"name": name, "pose": pose[:3].ravel().tolist(), "shape": _shape(model, name)}
            for name, pose in poses.items()
        ],
    }


def _extent(
    places: NDArray[np.float32], poses: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], float]:
    """Centre (3,) and size of what is worth seeing: 90 % of the points, and the cameras."""
    low, high = np.percentile(places, [5, 95], axis=0)
    centres = np.array([pose[:3, 3] for pose in poses.values()])
    low, high = np.minimum(low, centres.min(axis=0)), np.maximum(high, centres.max(axis=0))
    return (low + high) / 2, max(float(np.linalg.norm(high - low)), 1e-6)


def _shape(model: Any, name: str) -> tuple[float, float]:
    """Half width and half height of an image at depth 1."""
    camera = model.cameras[model.find_image_with_name(name).camera_id]
    focal = camera.mean_focal_length()
    return camera.width / 2 / focal, camera.height / 2 / focal


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
