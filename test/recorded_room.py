"""Sequences of the rendered room, written in the layouts of the data sets people have."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.trajectories import quaternion_of
from superglue_ros.geometry.camera import Camera
from superglue_ros.synthetic.demo_room import RoomSequence

SIZE = (640, 480)


class Recorded:
    """Frames of the rendered room as a camera with that lens would take them."""

    def __init__(self, lens: np.ndarray, count: int = 3, step: int = 8) -> None:
        room = RoomSequence()
        items = [room[step * i] for i in range(count)]
        self.matrix = items[0].camera.matrix
        self.poses = [item.T_world_camera for item in items]
        self.camera = Camera(*SIZE, self.matrix, lens)
        grid = np.stack(np.meshgrid(*map(np.arange, SIZE)), axis=-1).reshape(-1, 2)
        rays = self.camera.rays(grid.astype(float)) if len(lens) else None
        self.images, self.depths = [], []
        for item in items:
            image, depth = item.image, item.depth
            if rays is not None:
                maps = (np.c_[rays, np.ones(len(rays))] @ self.matrix.T)[:, :2]
                maps = np.nan_to_num(maps, nan=-1e4).reshape(SIZE[1], SIZE[0], 2)
                maps = maps.astype(np.float32)
                image = cv2.remap(image, maps, None, cv2.INTER_LINEAR)
                depth = cv2.remap(depth, maps, None, cv2.INTER_NEAREST)
            self.images.append(image)
            self.depths.append(depth)


def pose_line(stamp: str, pose: np.ndarray) -> str:
    return " ".join([stamp, *map(repr, map(float, [*pose[:3, 3], *quaternion_of(pose[:3, :3])]))])


def write_images(folder: Path, recorded: Recorded, unit: float, colour: str, depth: str) -> None:
    for i, (image, metres) in enumerate(zip(recorded.images, recorded.depths, strict=True)):
        for name, values in (
            (colour, image),
            (depth, np.rint(metres / unit).clip(0, 65535).astype(np.uint16)),
        ):
            path = folder / name.format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), values, [cv2.IMWRITE_JPEG_QUALITY, 98])


def numbers(values: np.ndarray) -> str:
    return " ".join(map(repr, map(float, values)))


def calibration(recorded: Recorded) -> str:
    m = recorded.matrix
    intrinsics = numbers(np.array([m[0, 0], m[1, 1], m[0, 2], m[1, 2]]))
    lens = numbers(recorded.camera.distortion) if recorded.camera.distorted else "0 0 0 0"
    return f"{SIZE[0]} {SIZE[1]} {intrinsics} {lens}\n"


def write_plain(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 1e-3, "color/{}.png", "depth/{}.png")
    rows = [f"{i}.0 color/{i}.png depth/{i}.png" for i in range(len(recorded.images))]
    (folder / "images.txt").write_text("\n".join(rows))
    poses = [pose_line(f"{i}.0", pose) for i, pose in enumerate(recorded.poses)]
    (folder / "groundtruth.tum").write_text("\n".join(poses))
    (folder / "intrinsics.txt").write_text(calibration(recorded))
    return folder


def write_tum(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 2e-4, "rgb/{}.png", "depth/{}.png")
    count = range(len(recorded.images))
    (folder / "rgb.txt").write_text("".join(f"{i}.000 rgb/{i}.png\n" for i in count))
    (folder / "depth.txt").write_text("".join(f"{i}.010 depth/{i}.png\n" for i in count))
    truth = [pose_line(f"{i}.0", pose) for i, pose in enumerate(recorded.poses)]
    (folder / "groundtruth.txt").write_text("\n".join(truth))
    (folder / "intrinsics.txt").write_text(calibration(recorded))
    return folder


def write_scannet(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 1e-3, "color/{}.jpg", "depth/{}.png")
    (folder / "intrinsic").mkdir()
    (folder / "pose").mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = recorded.matrix
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", matrix)
    for i, pose in enumerate(recorded.poses):
        np.savetxt(folder / f"pose/{i}.txt", pose)
    return folder


def write_megadepth(folder: Path, recorded: Recorded, scores: np.ndarray | None = None) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    (folder / "scene_info").mkdir(parents=True)
    for i, (image, metres) in enumerate(zip(recorded.images, recorded.depths, strict=True)):
        cv2.imwrite(str(folder / f"{i}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        with h5py.File(folder / f"{i}.h5", "w") as file:
            file["depth"] = metres
    count = range(len(recorded.images))
    scene = folder / "scene_info" / "0001.npz"
    np.savez(
        scene,
        image_paths=np.array([*(f"{i}.jpg" for i in count), None], object),
        depth_paths=np.array([*(f"{i}.h5" for i in count), None], object),
        intrinsics=np.array([*(recorded.matrix for _ in count), None], object),
        poses=np.array([*(np.linalg.inv(pose) for pose in recorded.poses), None], object),
        **({} if scores is None else {"overlap_matrix": np.pad(scores, (0, 1))}),
    )
    return scene


WRITERS = {
    "plain": write_plain,
    "tum": write_tum,
    "scannet": write_scannet,
    "megadepth": write_megadepth,
}
