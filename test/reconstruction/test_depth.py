"""Depth of models with known poses against the depth of the rendered room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.data.rectify import Rectification
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.depth_overlap import project_depth
from superglue_ros.reconstruction.depth import agreeing, make_depth
from superglue_ros.reconstruction.mapper import require_pycolmap
from superglue_ros.reconstruction.placed import PlacedImages, neighbours, read_model
from superglue_ros.reconstruction.scene import write_training_scene
from superglue_ros.reconstruction.stereo import RectifiedPair, View, depth_by_second, rectify
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera
from superglue_ros.training.data.sequence_views import SequenceDrawer
from superglue_ros.training.recipes import SequenceSource, ViewRecipe
from test.reconstruction import colmap_models

CAMERA = built_in_camera(320, 240)
LENS = np.array([0.12, -0.2, 0.001, 0.002])
FRAMES = range(0, 35, 7)


@dataclass(frozen=True)
class Shot:
    """What a camera at a pose sees."""

    image: np.ndarray
    depth: np.ndarray
    T_world_camera: np.ndarray


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    room = RoomSequence(frames=60, camera=CAMERA)
    items = [room[index] for index in FRAMES]
    return [Shot(item.image, item.depth, item.T_world_camera) for item in items]


def model_of(shots: list[Shot], camera: Camera = CAMERA) -> Any:
    """A COLMAP model with the true poses, and points of the room that three images see."""
    grid = np.stack(np.meshgrid(np.arange(6, 320, 12), np.arange(6, 240, 12)), -1).reshape(-1, 2)
    matrix, seen, points = CAMERA.matrix, [], []
    for start, one in enumerate(shots):
        pixels = [
            project_depth(grid, one.depth, other.depth, matrix, matrix,
                          np.linalg.inv(other.T_world_camera) @ one.T_world_camera)
            for other in shots
        ]  # fmt: skip
        visible = np.stack([~(p.hidden | p.unknown) for p in pixels])
        visible[start] = True
        kept = visible.sum(axis=0) >= 3
        depth = one.depth[grid[:, 1], grid[:, 0], None]
        local = np.c_[CAMERA.rays(grid), np.ones(len(grid))] * depth
        world = local @ one.T_world_camera[:3, :3].T + one.T_world_camera[:3, 3]
        points.append(world[kept])
        seen.append(visible[:, kept])
    world, visible = np.concatenate(points), np.concatenate(seen, axis=1)

    poses = [shot.T_world_camera for shot in shots]
    pixels = []
    for pose, here in zip(poses, visible, strict=True):
        inverse = np.linalg.inv(pose)
        pixels.append(camera.project(world[here] @ inverse[:3, :3].T + inverse[:3, 3]))
    return colmap_models.model_of(camera, poses, world, pixels, visible)


def write_images(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images, 1):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def model(shots: list[Shot]) -> Any:
    return model_of(shots)


@pytest.fixture(scope="module")
def images(shots: list[Shot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("room") / "images", [s.image for s in shots])


@pytest.fixture(scope="module")
def scene(model: Any, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The room as a scene, through the command."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "model").mkdir()
    model.write(folder / "model")
    words = ["depth", str(folder / "model"), str(images), "--output", str(folder / "out")]
    assert main(words) == 0
    return folder / "out" / "scene_info" / "scene.npz"


def errors_of(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Relative errors where there is depth."""
    known = depth > 0
    return np.abs(depth[known] / truth[known] - 1)


# -- the scene -------------------------------------------------------------------------------------


def test_depth_is_that_of_the_room(scene: Path, shots: list[Shot]) -> None:
    sequence = open_sequence(scene)
    assert len(sequence) == len(shots)
    errors = []
    for shot, item in zip(shots, sequence, strict=True):
        np.testing.assert_allclose(item.T_world_camera, shot.T_world_camera, atol=1e-6)
        np.testing.assert_allclose(item.camera.matrix, CAMERA.matrix)
        assert (item.depth > 0).mean() > 0.1
        errors.append(errors_of(item.depth, shot.depth))
    every = np.concatenate(errors)
    assert np.median(every) < 0.004
    assert (every < 0.02).mean() > 0.98


def test_training_draws_pairs_whose_labels_are_right(scene: Path, shots: list[Shot]) -> None:
    sequence = open_sequence(scene)
    scores = sequence.covisibility
    assert scores is not None
    np.testing.assert_allclose(np.diag(scores), 1)
    assert scores[0, 1] > scores[0, 4]
    source = SequenceSource(str(scene), layout="megadepth", gap=(0, 0))
    recipe = ViewRecipe(
        source="sequences", sequences=(source,), width=320, height=240, overlap=(0.1, 0.95)
    )
    views = SequenceDrawer(recipe)(np.random.default_rng(1))
    i, j = (
        next(n for n, s in enumerate(shots) if np.allclose(s.T_world_camera, pose, atol=1e-5))
        for pose in views.poses
    )
    grid = np.stack(np.meshgrid(np.arange(0, 320, 3), np.arange(0, 240, 3)), -1).reshape(-1, 2)
    made = views.project(grid, 0, 1)
    true = project_depth(
        grid, shots[i].depth, shots[j].depth, CAMERA.matrix, CAMERA.matrix,
        np.linalg.inv(shots[j].T_world_camera) @ shots[i].T_world_camera,
    )  # fmt: skip
    seen = ~(made.hidden | made.unknown)
    assert seen.sum() > 500
    assert true.hidden[seen].mean() < 0.02
    distance = np.linalg.norm(made.points - true.points, axis=1)[seen]
    assert np.median(distance) < 0.2
    assert (distance < 3).mean() > 0.99  # the threshold of matches outdoors


def test_a_model_has_no_unit(model: Any, images: Path, scene: Path, tmp_path: Path) -> None:
    pycolmap = require_pycolmap()
    large = pycolmap.Reconstruction(model)
    large.transform(pycolmap.Sim3d(1000.0, pycolmap.Rotation3d(), np.zeros(3)))
    figures = write_training_scene(large, images, tmp_path / "large")
    assert figures.with_depth == len(FRAMES)
    assert figures.carried_px < 0.3
    for small, item in zip(
        open_sequence(scene), open_sequence(tmp_path / "large/scene_info/scene.npz"), strict=True
    ):
        both = (small.depth > 0) & (item.depth > 0)
        assert both.sum() > 0.99 * (small.depth > 0).sum()
        np.testing.assert_allclose(item.depth[both], 1000 * small.depth[both], rtol=0.01)


def test_a_lens_is_rectified(shots: list[Shot], tmp_path: Path) -> None:
    camera = Camera(320, 240, CAMERA.matrix, LENS)
    grid = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).reshape(-1, 2)
    maps = CAMERA.distort(camera.rays(grid)).reshape(240, 320, 2).astype(np.float32)
    bent = [cv2.remap(shot.image, maps, None, cv2.INTER_CUBIC) for shot in shots[:4]]
    images = write_images(tmp_path / "images", bent)
    write_training_scene(model_of(shots[:4], camera), images, tmp_path / "scene")
    sequence = open_sequence(tmp_path / "scene/scene_info/scene.npz")
    straight = Rectification.of(camera).map_x > 0
    for shot, item in zip(shots, sequence, strict=False):
        assert not item.camera.distorted
        errors = errors_of(np.where(straight, item.depth, 0), shot.depth)
        assert len(errors) > 0.05 * item.depth.size
        assert np.median(errors) < 0.006


def test_what_only_one_image_shows_has_no_depth(
    model: Any, shots: list[Shot], tmp_path: Path
) -> None:
    """A patch like a passer-by: there, no neighbour has the same."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    painted = [shot.image.copy() for shot in shots]
    painted[2][80:160, 130:190] = cv2.GaussianBlur(noise, (0, 0), 1.0)
    images = write_images(tmp_path / "images", painted)
    maps = make_depth(PlacedImages(model, images, 320))
    assert (maps.depths[2][88:152, 138:182] > 0).mean() < 0.01
    assert (maps.depths[2] > 0).mean() > 0.1


# -- its parts -------------------------------------------------------------------------------------


def turned(x: float, y: float, z: float, roll_deg: float = 0.0, yaw_deg: float = 0.0) -> View:
    """A camera at a position of the world, turned."""
    turn = cv2.Rodrigues(np.radians([0.0, yaw_deg, 0]))[0]
    turn = cv2.Rodrigues(np.radians([0.0, 0, roll_deg]))[0] @ turn
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, -turn @ [x, y, z]
    return View(CAMERA, pose)


def mapped(matrix: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(pixels[None], matrix)[0]


@pytest.mark.parametrize(
    "second",
    [
        turned(0.4, 0, 0),
        turned(-0.4, 0.1, 0, yaw_deg=-6),
        turned(0, 0.4, 0.1, roll_deg=8),
        turned(0.1, -0.4, 0.1, roll_deg=90),
        turned(0.3, 0.2, -0.1, roll_deg=170, yaw_deg=5),
    ],
)
def test_points_of_a_rectified_pair_lie_in_one_row(second: View) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -0.7, 3.0], [1, 0.7, 6.0], (200, 3))
    first = turned(0, 0, 0)
    pair = rectify(first, second, points)
    assert pair is not None
    pixels = [view.camera.project(view.seen(points)) for view in (first, second)]
    left = mapped(pair.to_first, pixels[0])
    right = mapped(pair.to_second, pixels[1])
    np.testing.assert_allclose(left[:, 1], right[:, 1], atol=1e-6)
    disparity = left[:, 0] - right[:, 0]
    assert disparity.min() > 0
    assert disparity.max() < pair.disparities
    slant = np.c_[pixels[0], np.ones(200)] @ pair.slant
    depth = pair.scale / ((disparity + pair.least) * slant)
    np.testing.assert_allclose(depth, points[:, 2], rtol=1e-9)
    width, height = pair.size
    assert (left[:, 0] >= pair.disparities - 1).all()
    assert ((left >= 0) & (left <= [width - 1, height - 1])).all()


def test_a_camera_that_moves_where_it_looks_cannot_be_rectified() -> None:
    points = np.array([[0, 0, 5.0], [1, 1, 6]])
    assert rectify(turned(0, 0, 0), turned(0, 0, 0.5), points) is None
    assert rectify(turned(0, 0, 0), turned(0.05, 0, 0.5), points) is None
    assert rectify(turned(0, 0, 0), turned(0, 0, 0), points) is None


def test_sky_has_no_depth() -> None:
    """Half of the plane has no texture: semi-global matching alone fills it from the other half."""
    rng = np.random.default_rng(3)
    plane = cv2.GaussianBlur(rng.integers(0, 256, (240, 400), np.uint8), (0, 0), 1.5)
    plane[:120] = 200
    first, second = turned(0, 0, 0), turned(0.4, 0, 0)
    z = CAMERA.matrix[0, 0] * 0.4 / 20  # so that the disparity is 20 px
    pair = rectify(first, second, np.array([[0, 0, z], [0.5, 0.5, 1.3 * z]]))
    assert isinstance(pair, RectifiedPair)
    depth = depth_by_second(pair, plane[:, 20:340].copy(), plane[:, 40:360].copy())
    assert not depth[:114].any()
    known = depth[124:][depth[124:] > 0]
    assert len(known) > 0.6 * depth[124:].size
    assert (np.abs(known / z - 1) < 0.01).mean() > 0.98


def test_depths_that_agree_have_their_median() -> None:
    stack = np.array(
        [[2.0, 2.0, 2.0, 0, 1.0], [2.02, 3.0, 0, 0, 1.01], [2.01, 2.01, 0, 5.0, 4.0]], np.float32
    )[:, None]
    np.testing.assert_allclose(agreeing(stack, 0.015, 2), [[2.01, 2.01, 0, 0, 1.01]], rtol=1e-6)
    np.testing.assert_allclose(agreeing(stack, 0.015, 3), [[2.01, 0, 0, 0, 0]], rtol=1e-6)
    two = np.array([[2.0, 2.0], [2.02, 2.2]], np.float32)[:, None]
    np.testing.assert_allclose(agreeing(two, 0.015, 2), [[2.01, 0]], rtol=1e-6)


def test_large_images_are_made_smaller(model: Any, images: Path) -> None:
    whole, half = (PlacedImages(model, images, size) for size in (320, 160))
    assert half.colour(0).shape == (120, 160, 3)
    assert half.grey(0).shape == (120, 160)
    pixels = whole.images[0].pixels
    np.testing.assert_allclose(half.images[0].pixels, (pixels + 0.5) / 2 - 0.5, atol=1e-9)
    view = half.images[0].view
    seen = view.camera.project(view.seen(half.images[0].points))
    np.testing.assert_allclose(seen, half.images[0].pixels, atol=1e-6)


def test_neighbours_see_the_same_from_beside(model: Any, images: Path) -> None:
    placed = PlacedImages(model, images, 320)
    chosen = neighbours(placed.images, 6)
    assert all(n not in others for n, others in enumerate(chosen))
    assert {1, 2} <= set(chosen[0])
    assert all(len(others) <= 1 for others in neighbours(placed.images, 1))
    still = [placed.images[0]] * 3
    assert neighbours(still, 6) == [{}, {}, {}]


# -- bad input -------------------------------------------------------------------------------------


def test_bad_models_and_images_are_explained(
    model: Any,
    shots: list[Shot],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(model_folder: Path, image_folder: Path) -> str:
        words = ["depth", str(model_folder), str(image_folder), "--output", str(tmp_path / "out")]
        assert main(words) == 1
        assert not (tmp_path / "out").exists()
        return " ".join(capsys.readouterr().err.split())

    assert "is no COLMAP model: give a folder with cameras, images and" in said(images, images)
    whole, one, broken = (tmp_path / name for name in ("whole", "one", "broken"))
    for folder in (whole, one, broken):
        folder.mkdir()
    model.write(whole)
    model_of(shots[:1]).write(one)
    assert "the model has 1 image: depth of one is confirmed by two others" in said(one, images)
    (broken / "cameras.bin").write_bytes(b"\x01")
    assert "broken cannot be read as a COLMAP model" in said(broken, images)
    (tmp_path / "empty").mkdir()
    assert f"5 images of the model are not below {tmp_path / 'empty'}, the first of them 1.png" in (
        said(whole, tmp_path / "empty")
    )
    small = write_images(tmp_path / "small", [np.zeros((60, 80, 3), np.uint8)] * 5)
    assert "1.png is 80x60, but its camera in the model 320x240" in said(whole, small)
    blank = write_images(tmp_path / "blank", [np.zeros((240, 320, 3), np.uint8)] * 5)
    assert "has depth: each needs two others that see the same things" in said(whole, blank)
    with pytest.raises(SystemExit):
        main(["depth", str(whole), str(images), "--output", "out", "--max-size", "some"])
    assert "some: give at least 64 pixels" in capsys.readouterr().err


def test_nothing_but_a_scene_is_replaced(model: Any, images: Path, tmp_path: Path) -> None:
    photographs = write_images(tmp_path / "images", [np.zeros((240, 320, 3), np.uint8)])
    with pytest.raises(DataError, match=r"images lie inside .*: give another --output"):
        write_training_scene(model, photographs, tmp_path)
    with pytest.raises(DataError, match="is not empty and no scene: give another --output"):
        write_training_scene(model, images, tmp_path)
    assert (photographs / "1.png").is_file()


def test_names_that_leave_the_folder_are_refused(model: Any, images: Path, tmp_path: Path) -> None:
    pycolmap = require_pycolmap()
    for name in ("../1.png", "/etc/1.png"):
        other = pycolmap.Reconstruction(model)
        other.images[1].name = name
        with pytest.raises(DataError, match="is not below any folder: rename it"):
            PlacedImages(other, images, 320)
    with pytest.raises(DataError, match="is no COLMAP model"):
        read_model(tmp_path)
