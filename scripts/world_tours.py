"""Tours of the corpus's test worlds: sequences of the plain layout with depth, poses and revisits.

    scripts/run python scripts/world_tours.py CORPUS OUTPUT --count 12

Each is a way through one world, back, and the same way again in other light. No training sees these
worlds. `superglue-ros evaluate retrieval` and `evaluate loops` take the folders.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from superglue_ros.data.sequences.base import write_intrinsics
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.synthetic.demo_room import built_in_camera
from superglue_ros.synthetic.worlds.exposure import expose, gain_for
from superglue_ros.synthetic.worlds.renderer import Light, Renderer
from superglue_ros.synthetic.worlds.storage import load_world
from superglue_ros.synthetic.worlds.tours import TourConfig, tour
from superglue_ros.training.data.world_corpus import read_worlds

GAMMA = 0.7
MEAN = 0.45
PHOTONS = 3000  # of a white pixel


def main() -> None:
    """Draw tours of the first worlds that have room for one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--length", type=float, default=TourConfig().length_m, help="way [m]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    camera = built_in_camera()
    renderer = Renderer(camera.width, camera.height)
    done = 0
    for world in read_worlds(str(args.corpus), "test"):
        if done == args.count:
            break
        try:
            _write(args.output / Path(world.path).stem, renderer, world.path, camera, args)
            done += 1
        except DataError as error:
            print(f"{world.path}: {error}", file=sys.stderr)


def _write(
    folder: Path, renderer: Renderer, path: str, camera: Camera, args: argparse.Namespace
) -> None:
    rng = np.random.default_rng(args.seed)
    world = load_world(path)
    poses = tour(rng, world.space, TourConfig(length_m=args.length))
    renderer.load(world)
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    ambient, exposure = rng.uniform(0.05, 0.3, 2), rng.normal(0, 0.2, 2)
    for number, pose in enumerate(poses):
        at = number / len(poses)
        light = Light(float(np.interp(at, [0, 1], ambient)), sky=0.5)
        depth = renderer.depth(camera.matrix, pose)
        radiance = renderer.radiance(camera.matrix, pose, light)
        seen = radiance[depth > 0] if (depth > 0).any() else radiance
        gain = gain_for(seen, MEAN, GAMMA) * np.exp(np.interp(at, [0, 1], exposure))
        noisy = rng.poisson(np.clip(radiance * gain, 0, 1) * PHOTONS) / PHOTONS
        image = expose(noisy.astype(np.float32), 1.0, GAMMA)
        names = (f"color/{number:04d}.jpg", f"depth/{number:04d}.png")
        cv2.imwrite(str(folder / names[0]), image)
        cv2.imwrite(str(folder / names[1]), np.clip(depth * 1000, 0, 65535).astype(np.uint16))
        lines.append(f"{number / 10:.1f} {names[0]} {names[1]}\n")
    (folder / "images.txt").write_text("".join(lines))
    write_intrinsics(folder / "intrinsics.txt", camera)
    stamps = np.arange(len(poses), dtype=np.int64) * 100_000_000
    write_trajectory(folder / "groundtruth.tum", Trajectory(stamps, np.stack(poses)))
    print(f"{folder}: {len(poses)} frames", flush=True)


if __name__ == "__main__":
    main()
