from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.training.data.view_store import RenderedPairs, StoreRecipe, store_views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(corpus, tmp_path_factory) -> StoreRecipe:
    return StoreRecipe(
        source="rooms", corpus=str(corpus), sets=2, output=str(tmp_path_factory.mktemp("views")),
        views=3, width=96, height=64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(recipe) -> Path:
    return store_views(recipe)


def test_pairs_correspond_by_depth_and_pose(store):
    pairs = RenderedPairs(store, CPU, 1.0)
    assert len(pairs) == 2
    assert pairs.size == (96, 64)
    images, geometry = pairs.draw(6, np.random.default_rng(0))
    grid = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(64.0), indexing="xy"), -1)
    there, visible = geometry.warp(grid.flatten(0, 1).expand(6, -1, -1), 0)
    scale = torch.tensor([2 / 96, 2 / 64])
    seen = torch.nn.functional.grid_sample(
        images[1][:, None], ((there + 0.5) * scale - 1)[:, None], align_corners=False
    )[:, 0, 0]
    first = images[0].flatten(1)
    assert visible.float().mean() > 0.1
    right = (seen - first).abs()[visible].mean()
    assert right < 0.5 * (seen.roll(6, 1) - first).abs()[visible].mean()


def test_what_is_missing_is_made_again_and_equals(recipe, store, tmp_path):
    path = store / "set_000001.npz"
    with np.load(path) as file:
        before = file["images"]
    path.unlink()
    store_views(recipe)
    with np.load(path) as file:
        assert np.array_equal(file["images"], before)


def test_a_limit_on_the_device(store):
    one = next(store.glob("*.npz")).stat().st_size / 1e9
    assert len(RenderedPairs(store, CPU, 1.5 * one)) == 1


def test_a_store_that_would_fill_the_disk_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"take 92\.2 GB, over gigabytes: 20"):
        replace(recipe, sets=12_000, views=5, width=640, height=480)


def test_a_truncated_file_is_named(store, tmp_path):
    data = (store / "set_000000.npz").read_bytes()
    (tmp_path / "set_000000.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"set_000000\.npz is no view set"):
        RenderedPairs(tmp_path, CPU, 1.0)
