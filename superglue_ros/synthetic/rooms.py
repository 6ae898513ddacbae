"""Rooms of photographs to render: random ones, boxes and panels, and cameras in them.

World axes: x and y along the floor, z up, metres. Cameras: ``T_world_camera`` (4, 4), optical axes
(x right, y down, z forward).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from superglue_ros.synthetic.rendering import Plane, Scene, Texture

Matrix = NDArray[np.float64]

_UP = np.array([0.0, 0.0, 1.0])
_CLEARANCE_M = 0.3  # cameras stay this far from walls and boxes


def look_at(position: Matrix, target: Matrix, roll: float = 0.0) -> Matrix:
    """Pose (4, 4) of a camera at ``position`` looking at ``target``, turned by ``roll`` [rad]."""
    forward = (target - position) / np.linalg.norm(target - position)
    up = _UP if abs(forward[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = np.stack([right, down, forward], axis=1)
    T_world_camera[:3, 3] = position
    return rolled(T_world_camera, roll)


def rolled(T_world_camera: Matrix, angle: float) -> Matrix:
    """The pose (4, 4) turned by ``angle`` [rad] about the optical axis, x towards y."""
    turned = T_world_camera.copy()
    right, down = T_world_camera[:3, 0], T_world_camera[:3, 1]
    turned[:3, 0] = np.cos(angle) * right + np.sin(angle) * down
    turned[:3, 1] = np.cos(angle) * down - np.sin(angle) * right
    return turned


def panel(
    texture: Texture,
    centre: Matrix,
    towards: Matrix,
    width: float,
    height: float,
    gain: float = 1.0,
) -> Plane:
    """An upright (or lying) picture, viewed in direction ``towards`` (3,), unit length."""
    up = _UP if abs(towards[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(towards, up)
    right /= np.linalg.norm(right)
    down = np.cross(towards, right)
    edge_u, edge_v = right * width, down * height
    return Plane(
        texture=texture,
        origin=centre - 0.5 * (edge_u + edge_v),
        edge_u=edge_u,
        edge_v=edge_v,
        gain=gain,
    )


def box(
    textures: Sequence[Texture], centre: Matrix, size: Matrix, yaw: float, gain: float = 1.0
) -> tuple[Plane, ...]:
    """Four sides, top and bottom of a box of ``size`` (3,) metres, turned about z by ``yaw`` [rad].

    ``textures`` are used in turn; each side is a little darker than the one before.
    """
    planes = []
    for side in range(4):
        angle = yaw + side * np.pi / 2
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        across, reach = (size[1], size[0]) if side % 2 == 0 else (size[0], size[1])
        face = centre + outward * reach / 2
        shade = gain * (1.0 - 0.08 * side)
        planes.append(panel(textures[side % len(textures)], face, -outward, across, size[2], shade))
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    for end, texture in ((1, textures[0]), (-1, textures[-1])):
        middle = centre + end * _UP * size[2] / 2
        edge_u = turn @ np.array([size[0], 0.0, 0.0])
        edge_v = turn @ np.array([0.0, -end * size[1], 0.0])
        planes.append(
            Plane(
                texture=texture,
                origin=middle - 0.5 * (edge_u + edge_v),
                edge_u=edge_u,
                edge_v=edge_v,
                gain=gain,
            )
        )
    return tuple(planes)


def walls(
    size: Matrix, texture_of: dict[str, list[list[Texture]]], gain: float = 1.0
) -> tuple[Plane, ...]:
    """The inside of a room from (0, 0, 0) to ``size`` (3,) metres.

    ``texture_of`` gives a grid of textures (rows from the top) for each of ``south``, ``north``
    (y = 0, y = size), ``west``, ``east`` (x = 0, x = size), ``floor`` and ``ceiling``.
    """
    x, y, z = size
    sides = {
        "south": ((x / 2, 0, z / 2), (0, -1, 0), x, z, 0.95),
        "north": ((x / 2, y, z / 2), (0, 1, 0), x, z, 1.0),
        "west": ((0, y / 2, z / 2), (-1, 0, 0), y, z, 0.85),
        "east": ((x, y / 2, z / 2), (1, 0, 0), y, z, 0.9),
        "floor": ((x / 2, y / 2, 0), (0, 0, -1), x, y, 0.8),
        "ceiling": ((x / 2, y / 2, z), (0, 0, 1), x, y, 1.0),
    }
    planes = []
    for name, (centre, towards, width, height, shade) in sides.items():
        whole = panel(
            texture_of[name][0][0], np.array(centre, float), np.array(towards, float), width, height
        )
        rows, columns = len(texture_of[name]), len(texture_of[name][0])
        edge_u, edge_v = whole.edge_u / columns, whole.edge_v / rows
        for row, line in enumerate(texture_of[name]):
            for column, texture in enumerate(line):
                origin = whole.origin + column * edge_u + row * edge_v
                planes.append(
                    Plane(
                        texture=texture,
                        origin=origin,
                        edge_u=edge_u,
                        edge_v=edge_v,
                        gain=gain * shade,
                    )
                )
    return tuple(planes)


def random_room(rng: np.random.Generator, textures: Sequence[Texture]) -> Scene:
    """A room of 3 to 8 m with walls and boxes of random photographs, for training pairs."""
    size = rng.uniform((3.0, 3.0, 2.4), (8.0, 8.0, 4.0))

    def pick() -> Texture:
        return textures[int(rng.integers(len(textures)))]

    grids = {
        name: [[pick() for _ in range(columns)] for _ in range(rows)]
        for name in ("south", "north", "west", "east", "floor", "ceiling")
        for rows, columns in [rng.integers(1, 4, size=2)]
    }
    planes = list(walls(size, grids, gain=rng.uniform(0.7, 1.2)))
    obstacles = []
    for _ in range(rng.integers(2, 9)):
        extent = rng.uniform(0.15, 1.3, size=3)
        standing = rng.random() < 0.6
        low = np.array([0.5, 0.5, extent[2] / 2])
        centre = rng.uniform(low, np.maximum(size - low, low + 0.01))
        if standing:
            centre[2] = extent[2] / 2
        faces = [pick() for _ in range(rng.integers(1, 5))]
        planes += box(faces, centre, extent, rng.uniform(0, np.pi), rng.uniform(0.6, 1.2))
        diagonal = np.hypot(extent[0], extent[1])  # whatever the box's yaw
        reach = np.array([diagonal, diagonal, extent[2]]) / 2
        obstacles.append((centre - reach, centre + reach))
    return Scene(tuple(planes), np.array([np.zeros(3), size]), np.array(obstacles))


def is_free(scene: Scene, position: Matrix) -> bool:
    """Whether a camera at ``position`` (3,) is inside the room and clear of walls and boxes."""
    low, high = scene.bounds
    if (position < low + _CLEARANCE_M).any() or (position > high - _CLEARANCE_M).any():
        return False
    inside = (position > scene.obstacles[:, 0] - _CLEARANCE_M) & (
        position < scene.obstacles[:, 1] + _CLEARANCE_M
    )
    return not bool(inside.all(axis=1).any())


def random_views(
    rng: np.random.Generator,
    scene: Scene,
    count: int = 2,
    max_baseline: float = 0.6,
    max_roll: float = 0.5,
) -> list[Matrix]:
    """Poses (4, 4) of ``count`` cameras that look at about the same point of the scene.

    They stand within ``max_baseline`` times the first camera's distance to that point, rolled by
    up to ``max_roll`` [rad]. A box may still occlude the point in some of them:
    check the overlap with the rendered depths.
    """
    first, target = _random_first_view(rng, scene)
    distance = float(np.linalg.norm(target - first))
    views = [look_at(first, target, rng.uniform(-max_roll, max_roll))]
    reach = max_baseline
    while len(views) < count:
        step = rng.normal(size=3)
        step *= rng.uniform(0.02, reach) * distance / np.linalg.norm(step)
        if is_free(scene, first + step):
            aim = target + rng.normal(scale=0.08 * distance, size=3)
            views.append(look_at(first + step, aim, rng.uniform(-max_roll, max_roll)))
        else:
            reach = max(0.95 * reach, 0.03)  # a camera in a narrow corner takes smaller steps
    return views


def _random_first_view(rng: np.random.Generator, scene: Scene) -> tuple[Matrix, Matrix]:
    """A free position and a point on a plane's front that is neither too near nor too oblique."""
    low, high = scene.bounds
    while True:
        position = rng.uniform(low + _CLEARANCE_M, high - _CLEARANCE_M)
        plane = scene.planes[rng.integers(len(scene.planes))]
        s, t = rng.uniform(0.1, 0.9, size=2)
        target = plane.origin + s * plane.edge_u + t * plane.edge_v
        away = np.cross(plane.edge_u, plane.edge_v)
        ray = target - position
        distance = float(np.linalg.norm(ray))
        facing = float(ray @ away) / (distance * float(np.linalg.norm(away)) + 1e-12)
        if is_free(scene, position) and distance > 0.6 and facing > 0.35:
            return position, target
