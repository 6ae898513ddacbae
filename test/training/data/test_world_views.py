"""View sets of the small map: labels that fit, light that changes, textures that are exchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import HOMOGRAPHY
from superglue_ros.synthetic.photometric import PhotometricRecipe
from superglue_ros.synthetic.worlds.archives import GameFiles
from superglue_ros.synthetic.worlds.renderer import Renderer, renderer_of
from superglue_ros.synthetic.worlds.world import World, read_shaders, read_world
from superglue_ros.training.data.cache_builder import view_drawer
from superglue_ros.training.data.corpus import Source, collect
from superglue_ros.training.data.world_corpus import collect_worlds
from superglue_ros.training.data.world_drawer import WorldSource
from superglue_ros.training.data.world_views import WorldConfig, exchange_textures, world_views
from superglue_ros.training.recipes import ViewRecipe

from ...synthetic.worlds.small_map import write_game
from ...synthetic.worlds.small_track import write_track
from ..conftest import textured

SIZE = (320, 240)
USUAL = WorldConfig()
PLAIN = PhotometricRecipe(probability=0.0)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    try:
        return renderer_of(*SIZE)
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    write_game(folder)
    return folder


@pytest.fixture(scope="module")
def world(game: Path) -> World:
    files = GameFiles(game.rglob("*.pk3"))
    return read_world(files, read_shaders(files), "room")


def draw(renderer, world, seed, config=USUAL, count=3):
    return world_views(renderer, world, np.random.default_rng(seed), count, SIZE, config, PLAIN)


@pytest.mark.parametrize("seed", range(4))
def test_views_share_what_the_configuration_asks_and_labels_fit(renderer, world, seed):
    still = WorldConfig(exposure=0.0, relit=0.0, max_baseline=0.4, min_overlap=0.3)
    views = draw(renderer, world, seed, still)
    assert views.thresholds is HOMOGRAPHY
    assert [image.shape for image in views.images] == [(240, 320)] * 3
    errors = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert views.overlap(i, j) >= 0.3
        x, y = np.meshgrid(np.arange(320.0), np.arange(240.0))
        grid = np.stack([x.ravel(), y.ravel()], axis=1)
        seen = views.project(grid, j, i)
        maps = np.nan_to_num(seen.points, nan=-1).reshape(240, 320, 2).astype(np.float32)
        warped = cv2.remap(views.images[i], maps, None, cv2.INTER_LINEAR)
        usable = (~seen.hidden & ~seen.unknown).reshape(240, 320)
        inner = cv2.erode(usable.astype(np.uint8), np.ones((15, 15))) > 0
        corners = cv2.goodFeaturesToTrack(
            views.images[j], 200, 0.01, 6, mask=inner.astype(np.uint8)
        )
        found, ok, _ = cv2.calcOpticalFlowPyrLK(
            views.images[j], warped, corners, corners.copy(), winSize=(15, 15), maxLevel=0,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )  # fmt: skip
        errors += np.linalg.norm(found - corners, axis=2)[ok > 0].tolist()
    assert len(errors) > 60
    assert np.median(errors) < 0.3


def test_exposure_and_light_change_between_views_where_asked(renderer, world):
    def spread(config):
        logs = []
        for seed in range(5):
            means = [image.mean() for image in draw(renderer, world, seed, config).images]
            logs.append(np.log(means).std())
        return np.mean(logs)

    still = WorldConfig(exposure=0.0, relit=0.0, max_baseline=0.2)
    assert spread(still) < 0.06
    assert spread(replace(still, exposure=0.4)) > 0.15
    first, again = (draw(renderer, world, 1, still) for _ in range(2))
    for one, two in zip(first.images, again.images, strict=True):
        np.testing.assert_array_equal(one, two)  # all chance is the generator's
    other = draw(renderer, world, 1, replace(still, relit=1.0))
    np.testing.assert_array_equal(first.poses[0], other.poses[0])
    assert not np.array_equal(first.images[0], other.images[0])


def test_views_are_rolled_by_any_angle_as_often_as_asked(renderer, world):
    config = WorldConfig(max_baseline=0.2, min_overlap=0.05, turned=0.5)
    rolls = []
    for seed in range(6):
        views = draw(renderer, world, seed, config, count=5)
        ups = [np.clip(pose[:3, 1] @ views.poses[0][:3, 1], -1, 1) for pose in views.poses[1:]]
        rolls += np.degrees(np.arccos(ups)).tolist()
        assert views.overlap(0, 1 + int(np.argmin(ups))) >= 0.05
    assert 5 < sum(roll > 45 for roll in rolls) < 19  # of 24, 9 expected
    assert max(rolls) > 120


def test_opaque_textures_are_exchanged_and_holes_stay(world):
    seen = []

    def picture(rng):
        seen.append(int(rng.integers(256)))
        return np.full((40, 40), seen[-1], np.uint8)

    changed = exchange_textures(world, np.random.default_rng(0), picture)
    assert len(seen) == 3
    assert changed.textures[[0, 1, 3], 5, 5, 0].tolist() == seen
    np.testing.assert_array_equal(changed.textures[2], world.textures[2])  # the fence
    np.testing.assert_array_equal(changed.textures[..., 1], world.textures[..., 1])
    assert world.textures[0, ..., 0].std() > 20  # unchanged


def test_views_that_cannot_be_had_are_refused(renderer, world):
    with pytest.raises(DataError, match="lower min_overlap or max_baseline"):
        draw(renderer, world, 0, WorldConfig(min_overlap=1.0, max_baseline=3.0))


@pytest.fixture(scope="module")
def corpus(game: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    sources = [Source("small", game, "CC0", "worlds")]
    collect_worlds(sources, folder)
    photos = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        cv2.imwrite(str(photos / f"{seed}.png"), textured(seed, 640, 520))
    collect([Source("ours", photos, "CC0", "training-photographs"), *sources], folder)
    return folder


def recipe(corpus: Path, **settings) -> ViewRecipe:
    config = WorldConfig(**settings)
    return ViewRecipe(
        source="worlds", corpus=str(corpus), width=SIZE[0], height=SIZE[1], views=3, worlds=config,
        photometric=PLAIN,
    )  # fmt: skip


def test_a_drawer_draws_sets_that_depend_on_the_generator_alone(renderer, corpus):
    make = view_drawer(recipe(corpus), "")
    first, second = ([draw(rng) for _ in range(3)] for draw, rng in (
        (make(), np.random.default_rng(5)), (make(), np.random.default_rng(5))
    ))  # fmt: skip
    for one, two in zip(first, second, strict=True):
        assert len(one.images) == 3
        for a, b in zip(one.images, two.images, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0].images[0], first[1].images[0])


def test_textures_are_exchanged_for_photographs_as_often_as_asked(corpus):
    rng = np.random.default_rng(0)
    kept = WorldSource(recipe(corpus, exchanged=0.0), "")
    all_photographs = WorldSource(recipe(corpus, exchanged=1.0, photographs=1.0), "")
    all_textures = WorldSource(recipe(corpus, exchanged=1.0, photographs=0.0), "")
    original = kept.world(rng).textures[0, ..., 0]
    np.testing.assert_array_equal(kept.world(rng).textures[0, ..., 0], original)
    assert not np.array_equal(all_photographs.world(rng).textures[0, ..., 0], original)
    # Photographs are cut anew each time; of textures there are two.
    assert len({all_photographs.texture(rng).tobytes() for _ in range(12)}) == 12
    assert len({all_textures.texture(rng).tobytes() for _ in range(12)}) == 2
    half = WorldSource(recipe(corpus, exchanged=0.5, photographs=1.0), "")
    same = [np.array_equal(half.world(rng).textures[0, ..., 0], original) for _ in range(60)]
    assert 15 < sum(same) < 45


def test_sets_of_tracks_are_drawn_as_those_of_maps(renderer, tmp_path):
    write_track(tmp_path / "package")
    collect_worlds([Source("small", tmp_path / "package", "CC0", "worlds")], tmp_path)
    views = view_drawer(recipe(tmp_path), "")()(np.random.default_rng(1))
    assert len(views.images) == 3
    assert min(views.overlap(0, 1), views.overlap(0, 2), views.overlap(1, 2)) >= 0.15
    assert all((depth > 0).mean() >= 0.6 for depth in views.depths)
