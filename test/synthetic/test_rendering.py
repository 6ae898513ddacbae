"""The renderer against closed forms: depth, pose, occlusion, filtering."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from superglue_ros.errors import ImageError
from superglue_ros.synthetic.rendering import Plane, Scene, Texture, render
from superglue_ros.synthetic.rooms import look_at, panel, random_room, random_views

WIDTH, HEIGHT = 160, 120
MATRIX = np.array([[130.0, 0, (WIDTH - 1) / 2], [0, 130.0, (HEIGHT - 1) / 2], [0, 0, 1]])
NO_BOUNDS = (np.array([[-9.0] * 3, [9.0] * 3]), np.zeros((0, 2, 3)))


def blobs(seed: int, size: int = 256) -> Texture:
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return Texture(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8))


def frontal(texture: Texture, depth: float, width: float, height: float) -> Plane:
    """A plane that faces a camera at the origin with identity pose, centred."""
    return Plane(
        texture,
        np.array([-width / 2, -height / 2, depth]),
        np.array([width, 0.0, 0.0]),
        np.array([0.0, height, 0.0]),
    )


def scene(*planes: Plane) -> Scene:
    return Scene(planes, *NO_BOUNDS)


def test_depth_is_along_z_and_zero_where_nothing_is() -> None:
    _, depth = render(scene(frontal(blobs(0), 2.0, 1.0, 0.5)), MATRIX, WIDTH, HEIGHT, np.eye(4))
    seen = depth > 0
    np.testing.assert_allclose(depth[seen], 2.0, rtol=1e-6)
    # 1 m x 0.5 m at 2 m and 130 px: 65 x 32.5 pixels.
    assert seen.sum() == 65 * 32 or seen.sum() == pytest.approx(65 * 32.5, rel=0.04)


def test_depth_of_an_oblique_plane() -> None:
    tilted = Plane(
        blobs(0), np.array([-4.0, -4, 3]), np.array([8.0, 0, 1.6]), np.array([0.0, 8, -0.8])
    )
    _, depth = render(scene(tilted), MATRIX, WIDTH, HEIGHT, np.eye(4))
    normal = np.cross(tilted.edge_u, tilted.edge_v)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.linalg.inv(MATRIX) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    expected = (normal @ tilted.origin) / (normal @ rays)
    np.testing.assert_allclose(depth.reshape(-1), expected, rtol=1e-6)


def test_magnified_texture_lands_where_the_projection_says() -> None:
    """A blob in the texture is rendered at the projection of its world point."""
    image = np.zeros((65, 65), np.uint8)
    cv2.circle(image, (40, 20), 3, 255, -1)
    plane = frontal(Texture(image), 2.0, 1.3, 1.3)
    rendered, _ = render(scene(plane), MATRIX, WIDTH, HEIGHT, np.eye(4))
    weights = rendered.astype(float)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centroid = np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()
    point = plane.origin + 40.5 / 65 * plane.edge_u + 20.5 / 65 * plane.edge_v
    expected = MATRIX @ point
    np.testing.assert_allclose(centroid, expected[:2] / expected[2], atol=0.05)


def test_nearer_plane_occludes_whatever_the_order() -> None:
    near, far = frontal(blobs(1), 1.0, 0.4, 0.4), frontal(blobs(2), 2.0, 8.0, 8.0)
    one = render(scene(near, far), MATRIX, WIDTH, HEIGHT, np.eye(4))
    other = render(scene(far, near), MATRIX, WIDTH, HEIGHT, np.eye(4))
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1][HEIGHT // 2, WIDTH // 2] == pytest.approx(1.0)
    assert one[1][5, 5] == pytest.approx(2.0)


def test_plane_is_not_seen_from_behind_nor_behind_the_camera() -> None:
    plane = frontal(blobs(0), 2.0, 1.0, 1.0)
    behind = np.diag([-1.0, 1, -1, 1])
    behind[2, 3] = 4.0
    assert not render(scene(plane), MATRIX, WIDTH, HEIGHT, behind)[1].any()
    away = np.diag([-1.0, 1, -1, 1])
    assert not render(scene(plane), MATRIX, WIDTH, HEIGHT, away)[1].any()


def test_plane_through_the_near_plane_is_clipped() -> None:
    floor = Plane(
        blobs(0), np.array([-5.0, 1, 5]), np.array([10.0, 0, 0]), np.array([0.0, 0, -10.0])
    )
    _, depth = render(scene(floor), MATRIX, WIDTH, HEIGHT, np.eye(4))
    y = np.arange(HEIGHT)[:, None] - MATRIX[1, 2]
    expected = np.where(y > 0, 130.0 / np.maximum(y, 1e-9), 0.0)
    expected[expected > 5.0] = 0.0
    np.testing.assert_allclose(depth[:, WIDTH // 2], expected[:, 0], rtol=1e-6)


def test_shrunken_checkerboard_is_grey_not_aliased() -> None:
    checker = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image, _ = render(
        scene(frontal(Texture(checker), 1.0, 0.9, 0.9)), MATRIX, WIDTH, HEIGHT, np.eye(4)
    )
    inner = image[20:-20, 40:-40].astype(float)
    assert abs(inner.mean() - 127.5) < 3
    assert inner.std() < 3


def test_image_is_close_to_brute_force_supersampling() -> None:
    """Against the mean of 8 x 8 nearest samples of the same room, everywhere."""
    rng = np.random.default_rng(3)
    room = random_room(rng, [blobs(seed) for seed in range(6)])
    pose = random_views(rng, room, 1)[0]
    image, _ = render(room, MATRIX, WIDTH, HEIGHT, pose, samples=4)
    fine = MATRIX.copy()
    fine[:2] *= 8
    fine[:2, 2] += 3.5
    dense, _ = render(room, fine, WIDTH * 8, HEIGHT * 8, pose, samples=1)
    expected = cv2.resize(dense, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    error = np.abs(image.astype(int) - expected.astype(int))
    assert np.mean(error) < 2.5
    assert np.percentile(error, 99) < 20


def test_depth_and_pose_transfer_pixels_between_views() -> None:
    """Warping one view into the other by depth and pose reproduces its colours."""
    rng = np.random.default_rng(5)
    room = random_room(rng, [blobs(seed) for seed in range(6)])
    T_world_0, T_world_1 = random_views(rng, room, 2, max_baseline=0.2, max_roll=0.2)
    image0, depth0 = render(room, MATRIX, WIDTH, HEIGHT, T_world_0)
    image1, depth1 = render(room, MATRIX, WIDTH, HEIGHT, T_world_1)
    y, x = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    rays = np.linalg.inv(MATRIX) @ np.stack([x, y, np.ones_like(x)])
    points = np.vstack([rays * depth0.reshape(-1), np.ones(x.size)])
    points = (np.linalg.inv(T_world_1) @ T_world_0 @ points)[:3]
    pixels = (MATRIX @ points)[:2] / points[2]
    u, v = (p.reshape(HEIGHT, WIDTH).astype(np.float32) for p in pixels)
    warped = cv2.remap(image1, u, v, cv2.INTER_LINEAR)
    seen_depth = cv2.remap(depth1, u, v, cv2.INTER_LINEAR)
    visible = np.abs(seen_depth - points[2].reshape(HEIGHT, WIDTH)) < 0.01 * seen_depth
    visible &= (u > 0) & (v > 0) & (u < WIDTH - 1) & (v < HEIGHT - 1)
    assert visible.mean() > 0.3
    error = np.abs(warped.astype(int) - image0.astype(int))[visible]
    assert np.median(error) <= 3


def test_colour_and_grey_textures_mix() -> None:
    red = Texture(np.full((8, 8, 3), (0, 0, 200), np.uint8))
    image, _ = render(scene(frontal(red, 2.0, 9.0, 9.0)), MATRIX, WIDTH, HEIGHT, np.eye(4))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert (image == (0, 0, 200)).all()
    grey = frontal(Texture(np.full((8, 8), 90, np.uint8)), 1.0, 0.2, 0.2)
    image, _ = render(scene(frontal(red, 2.0, 9.0, 9.0), grey), MATRIX, WIDTH, HEIGHT, np.eye(4))
    assert tuple(image[HEIGHT // 2, WIDTH // 2]) == (90, 90, 90)


def test_nothing_to_see_is_black() -> None:
    image, depth = render(Scene((), *NO_BOUNDS), MATRIX, WIDTH, HEIGHT, np.eye(4))
    assert image.shape == depth.shape == (HEIGHT, WIDTH)
    assert not image.any()
    assert not depth.any()


def test_rendering_is_deterministic() -> None:
    def once() -> np.ndarray:
        rng = np.random.default_rng(7)
        room = random_room(rng, [blobs(1), blobs(2)])
        return render(room, MATRIX, WIDTH, HEIGHT, random_views(rng, room, 1)[0])[0]

    np.testing.assert_array_equal(once(), once())


@pytest.mark.parametrize("image", [np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.float32)])
def test_texture_refuses_what_is_no_image(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="texture has shape"):
        Texture(image)


def test_panel_reads_properly() -> None:
    """A panel's left is the viewer's left, its top is up."""
    image = np.zeros((64, 64), np.uint8)
    image[:32, :32] = 255
    wall = panel(Texture(image), np.array([0.0, 3, 1]), np.array([0.0, 1, 0]), 2.0, 2.0)
    pose = look_at(np.array([0.0, 0, 1]), np.array([0.0, 3, 1]))
    rendered, depth = render(scene(wall), MATRIX, WIDTH, HEIGHT, pose)
    assert depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(3.0)
    assert rendered[HEIGHT // 2 - 20, WIDTH // 2 - 20] == 255
    assert rendered[HEIGHT // 2 - 20, WIDTH // 2 + 20] == 0
    assert rendered[HEIGHT // 2 + 20, WIDTH // 2 - 20] == 0
