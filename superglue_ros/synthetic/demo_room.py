"""The built-in sequence: a walk through a room of photographs, with exact depth and pose.

The photographs are scikit-image's (``photographs.py``). Frames are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.geometry.camera import Camera
from superglue_ros.synthetic.photographs import FILES, photograph
from superglue_ros.synthetic.rendering import Plane, Scene, Texture, render
from superglue_ros.synthetic.rooms import box, look_at, panel, walls

FRAMES = 60
RATE_HZ = 10.0
START_NS = 1_000_000_000_000_000_000  # any fixed time: results must not depend on the clock

_SIZE = np.array([5.2, 4.6, 2.7])  # of the room, metres
_NOISE = 2.0  # standard deviation of the sensor noise in grey values


def built_in_camera(width: int = 640, height: int = 480) -> Camera:
    """A pinhole camera with a horizontal field of view of 65 degrees."""
    focal = width / 2 / np.tan(np.radians(65) / 2)
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera(width=width, height=height, matrix=matrix, distortion=np.zeros(0))


class RoomSequence:
    """``frames`` images of the room, BGR, with depth and pose; rendered when asked for.

    Raises :class:`DataError` where scikit-image is not installed.
    """

    name = "room"

    def __init__(self, frames: int = FRAMES, camera: Camera | None = None) -> None:
        self.camera = camera or built_in_camera()
        self._frames = frames
        self._scene = demo_room()

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[SequenceItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SequenceItem:
        """Frame ``index`` of the walk."""
        if not 0 <= index < self._frames:
            raise IndexError(index)
        pose = _walk(index / RATE_HZ)
        camera = self.camera
        clean, depth = render(self._scene, camera.matrix, camera.width, camera.height, pose)
        noise = np.random.default_rng(index).normal(scale=_NOISE, size=clean.shape)
        image = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
        stamp_ns = START_NS + round(index / RATE_HZ * 1e9)
        return SequenceItem(
            stamp_ns=stamp_ns, image=image, camera=camera, depth=depth, T_world_camera=pose
        )


def demo_room() -> Scene:
    """Walls of brick, a gravel floor, pictures on the walls and boxes in between."""
    images = {name: photograph(name) for name in FILES}
    photo = {name: Texture(image) for name, image in images.items()}
    brick, gravel, grass = (_variants(images[name]) for name in ("brick", "gravel", "grass"))
    planes = list(
        walls(
            _SIZE,
            {
                "south": [[brick[0], brick[1]]],
                "north": [[brick[2], brick[3]]],
                "west": [[brick[4], brick[5]]],
                "east": [[brick[6], brick[7]]],
                "floor": [[gravel[0], gravel[1]], [gravel[2], gravel[3]]],
                "ceiling": [[grass[0], grass[1]], [grass[2], grass[3]]],
            },
            gain=0.9,
        )
    )
    planes += _pictures(images, photo)
    boxes = [
        # textures, centre, size, yaw
        (("coffee", "coins", "chelsea", "rocket"), (2.1, 3.3, 0.35), (0.7, 0.5, 0.7), 0.5),
        (("page", "camera", "moon", "astronaut"), (3.6, 3.0, 0.55), (0.5, 0.6, 1.1), -0.3),
        (("retina", "hubble", "coins", "page"), (2.9, 2.2, 0.2), (0.4, 0.4, 0.4), 0.9),
        (("grass", "chelsea", "astronaut", "coffee"), (4.5, 1.6, 0.4), (0.6, 0.6, 0.8), 0.1),
    ]
    obstacles = []
    for names, centre, size, yaw in boxes:
        middle, extent = np.array(centre), np.array(size)
        planes += box([photo[name] for name in names], middle, extent, yaw)
        reach = np.array([np.hypot(*extent[:2]), np.hypot(*extent[:2]), extent[2]]) / 2
        obstacles.append((middle - reach, middle + reach))
    return Scene(tuple(planes), np.array([np.zeros(3), _SIZE]), np.array(obstacles))


def _pictures(images: dict[str, NDArray[np.uint8]], photo: dict[str, Texture]) -> list[Plane]:
    """Photographs on the walls, 2 cm before them."""
    x, y, _ = _SIZE
    off = 0.02
    north, east, west = np.array([0.0, 1, 0]), np.array([1.0, 0, 0]), np.array([-1.0, 0, 0])
    hung = [
        # picture, centre, direction one looks at it, width
        ("astronaut", (0.8, y - off, 1.6), north, 1.1),
        ("coffee", (2.1, y - off, 1.9), north, 1.2),
        ("rocket", (3.4, y - off, 1.5), north, 1.1),
        ("retina", (4.5, y - off, 1.8), north, 0.9),
        ("chelsea", (x - off, 3.8, 1.6), east, 1.2),
        ("hubble", (x - off, 2.4, 1.7), east, 1.1),
        ("camera", (x - off, 1.0, 1.5), east, 1.0),
        ("moon", (off, 3.6, 1.6), west, 1.1),
        ("coins", (off, 2.2, 1.5), west, 1.2),
        ("page", (off, 1.0, 1.6), west, 1.0),
    ]
    pictures = []
    for name, centre, towards, width in hung:
        height = width * images[name].shape[0] / images[name].shape[1]
        pictures.append(panel(photo[name], np.array(centre), towards, width, height))
    return pictures


def _walk(seconds: float) -> NDArray[np.float64]:
    """Pose (4, 4) of a camera carried by hand: an arc to the right, with steps and sway."""
    t = seconds
    step = 2 * np.pi * 1.7 * t  # 1.7 steps a second
    position = np.array(
        [
            1.2 + 0.42 * t + 0.02 * np.sin(step / 2),
            0.7 + 0.5 * np.sin(0.45 * t),
            1.45 + 0.025 * np.sin(step),
        ]
    )
    target = np.array(
        [
            1.7 + 0.5 * t + 0.05 * np.sin(2.1 * t + 0.4),
            4.4 - 0.12 * t,
            1.15 + 0.06 * np.sin(1.3 * t) + 0.02 * np.sin(step + 0.7),
        ]
    )
    return look_at(position, target, roll=0.06 * np.sin(1.1 * t) + 0.015 * np.sin(step / 2))


def _variants(image: NDArray[np.uint8]) -> list[Texture]:
    """The eight turned and mirrored copies: neighbouring wall panels must not repeat."""
    turned = [np.rot90(image, k) for k in range(4)]
    return [Texture(np.ascontiguousarray(t)) for view in turned for t in (view, view[:, ::-1])]
