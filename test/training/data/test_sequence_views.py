"""Sequences of every layout as view sets: labels that fit what the camera saw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR
from superglue_ros.registry import SEQUENCES
from superglue_ros.synthetic.demo_room import RoomSequence
from superglue_ros.training.data.sequence_views import PosedFrames, SequenceDrawer
from superglue_ros.training.recipes import SequenceSource, ViewRecipe

LENS = np.array([0.2624, -0.9531, -0.0054, 0.0026, 1.1633])  # that of freiburg1: a wide one
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
    from superglue_ros.data.trajectories import quaternion_of

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


def plain(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 1e-3, "color/{}.png", "depth/{}.png")
    rows = [f"{i}.0 color/{i}.png depth/{i}.png" for i in range(len(recorded.images))]
    (folder / "images.txt").write_text("\n".join(rows))
    poses = [pose_line(f"{i}.0", pose) for i, pose in enumerate(recorded.poses)]
    (folder / "groundtruth.tum").write_text("\n".join(poses))
    (folder / "intrinsics.txt").write_text(calibration(recorded))
    return folder


def tum(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 2e-4, "rgb/{}.png", "depth/{}.png")
    count = range(len(recorded.images))
    (folder / "rgb.txt").write_text("".join(f"{i}.000 rgb/{i}.png\n" for i in count))
    (folder / "depth.txt").write_text("".join(f"{i}.010 depth/{i}.png\n" for i in count))
    truth = [pose_line(f"{i}.0", pose) for i, pose in enumerate(recorded.poses)]
    (folder / "groundtruth.txt").write_text("\n".join(truth))
    (folder / "intrinsics.txt").write_text(calibration(recorded))
    return folder


def scannet(folder: Path, recorded: Recorded) -> Path:
    write_images(folder, recorded, 1e-3, "color/{}.jpg", "depth/{}.png")
    (folder / "intrinsic").mkdir()
    (folder / "pose").mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = recorded.matrix
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", matrix)
    for i, pose in enumerate(recorded.poses):
        np.savetxt(folder / f"pose/{i}.txt", pose)
    return folder


def megadepth(folder: Path, recorded: Recorded) -> Path:
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
    )
    return scene


WRITERS = {"plain": plain, "tum": tum, "scannet": scannet, "megadepth": megadepth}
NO_LENS = np.zeros(0)


def label_errors(frames: PosedFrames, size: tuple[int, int]) -> np.ndarray:
    """How far from where their labels say corners of view 0 are found by tracking into view 1."""
    views = frames.views([0, 1], size)
    first, second = views.images
    corners = cv2.goodFeaturesToTrack(first, 120, 0.02, 12)
    projection = views.project(corners[:, 0], 0, 1)
    seen = ~projection.hidden & ~projection.unknown
    start = projection.points[seen].astype(np.float32)[:, None]
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, corners[seen], start.copy(), winSize=(21, 21), maxLevel=2,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    assert seen.sum() > 30
    return np.linalg.norm(tracked - start, axis=2)[found.astype(bool)]


@pytest.mark.parametrize("layout", SEQUENCES)
def test_labels_fit_the_images_in_every_layout(tmp_path, layout):
    path = WRITERS[layout](tmp_path / "s", Recorded(NO_LENS))
    sequence = open_sequence(path)  # recognised by its files
    assert len(sequence) == 3
    frames = PosedFrames(sequence)
    assert frames.thresholds == (OUTDOOR if layout == "megadepth" else INDOOR)
    assert np.median(label_errors(frames, SIZE)) < 0.5
    assert np.median(label_errors(frames, (320, 240))) < 0.5


@pytest.mark.parametrize("layout", ["plain", "tum"])
def test_labels_fit_images_of_a_lens_that_bends_lines(tmp_path, layout):
    """They are rectified; by the intrinsics alone the labels would be off by pixels."""
    recorded = Recorded(LENS)
    frames = PosedFrames(open_sequence(WRITERS[layout](tmp_path / "s", recorded)))
    assert np.median(label_errors(frames, SIZE)) < 0.7
    frames._rectification = None
    assert np.median(label_errors(frames, SIZE)) > 1.5


def test_views_are_cropped_and_resized_with_their_intrinsics(tmp_path):
    recorded = Recorded(NO_LENS, count=1)
    frames = PosedFrames(open_sequence(plain(tmp_path / "s", recorded)))
    view = frames.view(0, (240, 240))
    assert view.image.shape == view.depth.shape == (240, 240)
    # 480 of 640 columns stay, from column 80 on; then half the resolution.
    m = recorded.matrix
    expected = [
        [m[0, 0] / 2, 0, (m[0, 2] - 80 + 0.5) / 2 - 0.5],
        [0, m[1, 1] / 2, (m[1, 2] + 0.5) / 2 - 0.5],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(view.matrix, expected)


def test_frames_without_depth_or_pose_are_left_out(tmp_path):
    folder = plain(tmp_path / "s", Recorded(NO_LENS))
    rows = (folder / "images.txt").read_text().splitlines()
    rows[1] = rows[1].rsplit(" ", 1)[0]
    (folder / "images.txt").write_text("\n".join(rows))
    truth = (folder / "groundtruth.tum").read_text().splitlines()
    (folder / "groundtruth.tum").write_text("\n".join(truth[:2]))
    frames = PosedFrames(open_sequence(folder))
    assert [frames.view(i, SIZE) is not None for i in range(3)] == [True, False, False]


def recipe_of(folder: Path, **settings) -> ViewRecipe:
    source = SequenceSource(folder=str(folder), gap=settings.pop("gap", (1, 2)))
    return ViewRecipe(source="sequences", sequences=(source,), width=320, height=240, **settings)


def test_drawn_views_share_as_much_as_the_recipe_says(tmp_path):
    folder = plain(tmp_path / "s", Recorded(NO_LENS, count=6, step=6))
    wide = SequenceDrawer(recipe_of(folder, overlap=(0.0, 1.0), gap=(1, 5)))
    shared = [wide(np.random.default_rng(seed)).overlap(0, 1) for seed in range(25)]
    low, high = np.quantile(shared, [0.3, 0.7])
    assert high > low
    narrow = SequenceDrawer(recipe_of(folder, overlap=(float(low), float(high)), gap=(1, 5)))
    for seed in range(10):
        assert low <= narrow(np.random.default_rng(seed)).overlap(0, 1) <= high
    with pytest.raises(DataError, match=r"share 1\.1 to 1\.2 of their area: widen overlap"):
        SequenceDrawer(recipe_of(folder, overlap=(1.1, 1.2)))(np.random.default_rng(0))


def test_photographs_without_order_are_paired_at_random(tmp_path):
    folder = plain(tmp_path / "s", Recorded(NO_LENS, count=4, step=2))
    draw = SequenceDrawer(recipe_of(folder, overlap=(0.0, 1.0), gap=(0, 0)))
    truth = open_sequence(folder)
    seen = set()
    for seed in range(30):
        poses = draw(np.random.default_rng(seed)).poses
        places = [next(k for k in range(4) if np.allclose(truth.pose(k), pose)) for pose in poses]
        seen.add(tuple(places))
    assert any(a > b for a, b in seen)
    assert len(seen) > 6
    assert all(a != b for a, b in seen)


def test_a_recipe_without_sequences_is_refused():
    with pytest.raises(DataError, match="names no sequences"):
        SequenceDrawer(ViewRecipe(source="sequences"))
