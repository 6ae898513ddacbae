"""What is drawn is where the depth, the pose and the matrix say, to a fraction of a pixel."""

import builtins

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.synthetic.worlds import renderer as module
from superglue_ros.synthetic.worlds.exposure import expose, gain_for
from superglue_ros.synthetic.worlds.renderer import Light, Renderer, renderer_of

from .reprojection import MATRIX, reprojection_errors
from .small_map import BOX, FENCE, LIGHT, PILLAR, SIZE

USUAL = Light()


def view(eye, target, roll=0.0):
    return look_at(np.array(eye, float), np.array(target, float), roll)


def shown(renderer, world, pose, light=USUAL):
    renderer.load(world)
    return renderer.radiance(MATRIX, pose, light), renderer.depth(MATRIX, pose)


def rays(pose):
    """Directions (H, W, 3) in the world, of depth 1."""
    x, y = np.meshgrid(np.arange(640.0), np.arange(480.0))
    seen = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(MATRIX).T
    return seen @ pose[:3, :3].T


def test_depth_is_that_of_each_pixels_centre(renderer, world):
    """The wall y = 6, seen from the side: its plane's depth at whole pixel numbers."""
    pose = view([5.0, 3.8, 2.8], [2.5, 6.0, 3.1], roll=0.3)
    _, depth = shown(renderer, world, pose)
    direction = rays(pose)
    with np.errstate(divide="ignore"):
        expected = (SIZE[1] - pose[1, 3]) / direction[..., 1]
    point = pose[:3, 3] + direction * expected[..., None]
    on_wall = (np.abs(point[..., 0] - 3.0) < 2.8) & (point[..., 2] > 2.4) & (point[..., 2] < 3.9)
    free = on_wall & ~((point[..., 0] > 5.5) | (expected < 0))
    assert free.sum() > 20_000
    np.testing.assert_allclose(depth[free], expected[free], rtol=2e-5)
    # Half a pixel to the side would be a hundred times as much.
    shifted = np.abs(depth[:, 1:] / expected[:, :-1] - 1)[free[:, 1:] & free[:, :-1]]
    assert np.median(shifted) > 3e-4


def test_edges_are_where_the_matrix_projects_them(renderer, world):
    """The corners of the box's top, found in the depth map, against their projections."""
    pose = view([1.2, 0.8, 2.9], [3.5, 2.7, 1.4])
    _, depth = shown(renderer, world, pose)
    corner = BOX[[0, 0, 1], [0, 1, 2]]
    camera = pose[:3, :3].T @ (corner - pose[:3, 3])
    u, v = (MATRIX @ camera)[:2] / camera[2]
    assert depth[round(v), round(u)] == pytest.approx(camera[2], rel=5e-3)
    # Left of the box's left silhouette the floor is seen, right of it the box's side.
    edge = np.array([BOX[0, 0], BOX[1, 1], 0.7])
    camera = pose[:3, :3].T @ (edge - pose[:3, 3])
    u, v = (MATRIX @ camera)[:2] / camera[2]
    row = depth[round(v)]
    jump = int(np.argmax(np.abs(np.diff(row[int(u) - 15 : int(u) + 16])))) + int(u) - 15
    assert abs(jump + 0.5 - u) < 1.2  # the row is that of a rounded v


def test_renderers_of_two_sizes_take_turns(renderer, world):
    pose = view([5.0, 3.8, 2.8], [2.5, 6.0, 3.1], roll=0.3)
    alone = [part.copy() for part in shown(renderer, world, pose)]
    other = renderer_of(320, 240)
    other.load(world)
    small = other.depth(MATRIX, pose)
    for before, after in zip(alone, shown(renderer, world, pose), strict=True):
        np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(other.depth(MATRIX, pose), small)
    assert small.shape == (240, 320)


@pytest.mark.parametrize("motion", ["orbit", "forward", "roll"])
def test_views_reproject_onto_each_other(renderer, world, motion):
    """Lucas-Kanade from where depth and pose say finds the same place, to 0.1 px in the median."""
    first = view([2.0, 1.0, 1.6], [4.5, 3.2, 1.0])
    second = {
        "orbit": view([2.6, 0.7, 1.8], [4.5, 3.2, 1.0], 0.1),
        "forward": view([2.3, 1.3, 1.5], [4.6, 3.2, 1.0]),
        "roll": view([2.0, 1.0, 1.6], [4.5, 3.2, 1.0], 0.5),
    }[motion]
    moved = reprojection_errors(renderer, world, first, second)
    assert len(moved) > 100
    assert np.median(moved) < 0.1
    assert np.quantile(moved, 0.8) < 0.3


def test_holes_of_a_fence_show_what_is_behind(renderer, world):
    pose = view([2.0, 3.6, 1.0], [1.75, 4.5, 1.0])
    _, depth = shown(renderer, world, pose)
    direction = rays(pose)
    expected = (FENCE[0, 1] - pose[1, 3]) / direction[..., 1]
    point = pose[:3, 3] + direction * expected[..., None]
    on_fence = (np.abs(point[..., 0] - 1.75) < 0.7) & (np.abs(point[..., 2] - 1.0) < 0.9)
    repeat = (point[..., 0] - FENCE[0, 0]) / 2 % 1  # 2 m a picture, its left half opaque
    bars = on_fence & (repeat > 0.05) & (repeat < 0.45)
    holes = on_fence & (repeat > 0.55) & (repeat < 0.7)
    assert min(bars.sum(), holes.sum()) > 2000
    np.testing.assert_allclose(depth[bars], expected[bars], rtol=1e-4)
    assert (depth[holes] > 1.5 * expected[holes]).all()


def test_light_is_texture_times_lightmap_plus_ambient_and_sun(renderer, world):
    """On the fence, whose picture is of one grey value; its normal points to -y."""
    pose = view([1.3, 3.5, 1.0], [1.3, 4.5, 1.0])
    grey = 90 / 255
    centre = np.s_[230:240, 315:325]
    for light, expected in (
        (Light(ambient=0.0), LIGHT / 255),
        (Light(ambient=0.25), LIGHT / 255 + 0.25),
        (Light(ambient=0.0, sun=(0, -0.5, 0)), LIGHT / 255 + 0.5),
        (Light(ambient=0.0, sun=(0, 0.5, 0)), LIGHT / 255),
    ):
        radiance, _ = shown(renderer, world, pose, light)
        np.testing.assert_allclose(radiance[centre], grey * expected, rtol=4e-3)


def test_where_nothing_is_there_is_sky_without_depth(renderer, world):
    pose = view([4.0, -3.0, 2.0], [4.0, -9.0, 2.0])  # outside, looking away
    radiance, depth = shown(renderer, world, pose, Light(sky=0.7))
    assert (depth == 0).all()
    np.testing.assert_allclose(radiance, 0.7, atol=1e-3)


def test_a_picture_depends_on_nothing_but_its_arguments(renderer, world):
    pose = view([1.0, 1.0, 1.5], PILLAR.mean(axis=0))
    image, depth = shown(renderer, world, pose)
    shown(renderer, world, view([7.0, 5.0, 3.0], [1.0, 1.0, 1.0]), Light(0.3, (1, 0, 0), 0.1))
    again = shown(renderer, world, pose)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(depth, again[1])


def test_exposure_reaches_its_mean_and_is_monotonic():
    radiance = np.linspace(0, 0.2, 101, dtype=np.float32)[None]
    image = expose(radiance, gain_for(radiance, 0.4, 1.0), 1.0)
    assert abs(image.mean() / 255 - 0.4) < 0.01
    assert (np.diff(image[0].astype(int)) >= 0).all()
    np.testing.assert_array_equal(expose(np.float32([[0, 0.25, 9]]), 1.0, 0.5), [[0, 128, 255]])


def test_a_forked_process_is_refused_where_it_would_hang(renderer, monkeypatch):
    monkeypatch.setattr(module.os, "getpid", lambda: 1)
    with pytest.raises(DataError, match=r"let only the workers draw \(loop\.workers\)"):
        renderer_of(64, 48)


def test_drawing_needs_a_world(renderer):
    fresh = Renderer(64, 48)
    with pytest.raises(DataError, match="no world is loaded"):
        fresh.depth(MATRIX, np.eye(4))


def test_without_moderngl_or_egl_the_error_says_what_to_install(monkeypatch):
    pytest.importorskip("moderngl")
    import moderngl

    def refuse(**_kwargs):
        raise Exception("libEGL.so.1 not loaded")

    monkeypatch.setattr(moderngl, "create_context", refuse)
    with pytest.raises(
        DataError, match=rf"libEGL.so.1 not loaded\): apt install {module.PACKAGES}"
    ):
        module.open_context()
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "moderngl":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DataError, match="pip install moderngl"):
        module.open_context()
