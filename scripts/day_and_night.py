"""A game world by day and by night: two sequences of the plain layout, with calibration and poses.

    scripts/run python scripts/day_and_night.py WORLD.npz OUTPUT

``day`` is a walk in sunlight, ``night`` are views near it, of the same places in the light of the
map's own lamps, with the noise of few photons. docs/localization.md shows what comes of it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.sequences.base import write_intrinsics
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.synthetic.demo_room import built_in_camera
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds.cameras import first_camera, next_camera
from superglue_ros.synthetic.worlds.exposure import expose, gain_for
from superglue_ros.synthetic.worlds.renderer import Light, Renderer
from superglue_ros.synthetic.worlds.storage import load_world
from superglue_ros.synthetic.worlds.world import World

Array = NDArray[np.float64]

GAMMA = 0.7
ROLL = 0.06  # radians
STEP = 0.22
"""From one camera of the walk to the next, in parts of the distance to what it sees."""


@dataclass(frozen=True)
class Scene:
    """``lamps``: how much of the map's own light there is; ``photons`` of a white pixel."""

    light: Light
    lamps: float
    mean: float
    photons: float


DAY = Scene(Light(ambient=0.5, sun=(0.7, 0.4, 0.9), sky=1.5), lamps=0.15, mean=0.5, photons=4000)
NIGHT = Scene(Light(ambient=0.015, sun=(0.0, 0.0, 0.0), sky=0.02), 1.0, mean=0.22, photons=60)


def main() -> None:
    """Draw both sequences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("world", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--day", type=int, default=40, help="views by day")
    parser.add_argument("--night", type=int, default=30, help="views by night")
    parser.add_argument(
        "--photons", type=float, default=NIGHT.photons, help="of a white pixel by night"
    )
    parser.add_argument(
        "--beside", type=float, default=STEP, help="how far night views are from the walk, as STEP"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    camera, rng = built_in_camera(640, 480), np.random.default_rng(args.seed)
    world, renderer = load_world(args.world), Renderer(640, 480)
    renderer.load(world)
    walk = _walk(rng, renderer, world, camera, args.day)
    near = [_near(rng, renderer, world, camera, walk, args.beside) for _ in range(args.night)]
    night = replace(NIGHT, photons=args.photons)
    _write(args.output / "day", renderer, world, camera, walk, DAY, rng)
    _write(args.output / "night", renderer, world, camera, near, night, rng)


def _walk(
    rng: np.random.Generator, renderer: Renderer, world: World, camera: Camera, count: int
) -> list[Array]:
    """A chain of cameras, each near the one before it; begun anew where it does not go on."""
    for _ in range(200):
        chain = [first_camera(rng, world.space)]
        if _distance(renderer, camera, chain[0]) is None:
            continue
        while len(chain) < count:
            following = _next(rng, renderer, world, camera, chain[-1], STEP)
            if following is None:
                break
            chain.append(following)
        if len(chain) == count:
            return chain
    raise DataError("the world has no room for such a walk: give another --seed")


def _near(
    rng: np.random.Generator,
    renderer: Renderer,
    world: World,
    camera: Camera,
    walk: list[Array],
    step: float,
) -> Array:
    for _ in range(200):
        start = walk[int(rng.integers(len(walk)))]
        found = _next(rng, renderer, world, camera, start, step)
        if found is not None:
            return found
    raise DataError("the world has no room beside the walk: give another --seed")


def _next(
    rng: np.random.Generator,
    renderer: Renderer,
    world: World,
    camera: Camera,
    last: Array,
    step: float,
) -> Array | None:
    distance = _distance(renderer, camera, last)
    for _ in range(12):
        motion = str(rng.choice(["orbit", "walk"]))
        reach = float(rng.uniform(0.4, 1.0)) * step * min(distance or 1.0, 8.0)
        pose = next_camera(rng, world.space, last, motion, distance or 1.0, reach)
        if pose is not None:
            # Held upright: a roll that grows from camera to camera is nobody's walk.
            pose = look_at(pose[:3, 3], pose[:3, 3] + pose[:3, 2], rng.normal(0, ROLL))
            if _distance(renderer, camera, pose) is not None:
                return pose
    return None


def _distance(renderer: Renderer, camera: Camera, pose: Array) -> float | None:
    """Median distance of what a camera sees; None where that is sky, or right before it."""
    depth = renderer.depth(camera.matrix, pose)
    seen = depth[depth > 0]
    if len(seen) < 0.7 * depth.size or np.percentile(seen, 5) < 0.5:
        return None
    return float(np.median(seen))


def _write(
    folder: Path,
    renderer: Renderer,
    world: World,
    camera: Camera,
    poses: list[Array],
    scene: Scene,
    rng: np.random.Generator,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lights = (world.lights * scene.lamps).astype(np.uint8)
    mesh = replace(world.mesh, brightness=world.mesh.brightness * np.float32(scene.lamps))
    renderer.load(replace(world, mesh=mesh, lights=lights))
    lines = []
    for number, pose in enumerate(poses):
        radiance = renderer.radiance(camera.matrix, pose, scene.light)
        exposed = radiance * gain_for(radiance, scene.mean, GAMMA)
        noisy = rng.poisson(np.clip(exposed, 0, 1) * scene.photons) / scene.photons
        name = f"{number:03d}.png"
        cv2.imwrite(str(folder / name), expose(noisy.astype(np.float32), 1.0, GAMMA))
        lines.append(f"{number}.0 {name}\n")
    (folder / "images.txt").write_text("".join(lines))
    write_intrinsics(folder / "intrinsics.txt", camera)
    stamps = np.arange(len(poses), dtype=np.int64) * 1_000_000_000
    write_trajectory(folder / "groundtruth.tum", Trajectory(stamps, np.stack(poses)))


if __name__ == "__main__":
    main()
