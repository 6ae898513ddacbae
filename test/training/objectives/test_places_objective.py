"""Training of the aggregation for place recognition: pairs, the loss by hand, a whole run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from superglue_ros.cli import main
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.places import PlacesConfig
from superglue_ros.networks.weights import load_places
from superglue_ros.training.data.cache import Shard, write_shard
from superglue_ros.training.objectives.places import PlacesObjective, _by_place, place_loss
from superglue_ros.training.recipes import PlacesRecipe

KEYPOINTS, DIM = 24, 8
NETWORK = PlacesConfig(descriptor_dim=DIM, clusters=8, ghosts=1, width=4)


def shard(seed: int, places: int = 6, views: int = 3) -> Shard:
    """Places that share few descriptors among many that all places have."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((KEYPOINTS, DIM))
    described, pairs = [], []
    for place in range(places):
        own = rng.standard_normal((KEYPOINTS // 3, DIM))
        for _ in range(views):
            chosen = np.concatenate([own, common[rng.permutation(KEYPOINTS)[: 2 * KEYPOINTS // 3]]])
            described.append(chosen + 0.1 * rng.standard_normal(chosen.shape))
        first = place * views
        pairs += [(first + i, first + j) for j in range(views) for i in range(j)]
    values = torch.tensor(np.array(described), dtype=torch.float32)
    count = len(described)
    labels = torch.zeros(len(pairs), KEYPOINTS, dtype=torch.int16)
    return Shard(
        keypoints=torch.from_numpy(100 * rng.random((count, KEYPOINTS, 2))).float(),
        scores=torch.ones(count, KEYPOINTS),
        descriptors=torch.nn.functional.normalize(values, dim=2).half(),
        counts=torch.full((count,), KEYPOINTS, dtype=torch.int32),
        sizes=torch.full((count, 2), 100.0),
        pairs=torch.tensor(pairs, dtype=torch.int32),
        matches0=labels,
        matches1=labels.clone(),
    )


def recipe(**changes) -> dict:
    return {
        "output": "run",
        "steps": 60,
        "caches": {"views": 1.0},
        "validation": ["held"],
        "network": {"descriptor_dim": DIM, "clusters": 8, "ghosts": 1, "width": 4},
        "places": 6,
        "keypoints": [16, 24],
        "crop": 1.0,
        "temperature": 0.1,
        "optimiser": {"name": "adamw", "learning_rate": 0.01, "clip": 1.0},
        "loop": {"precision": "float32", "report_every": 20, "device": "cpu"},
        **changes,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seeds in (("views", range(4)), ("held", [9])):
        for seed in seeds:
            write_shard(shard(seed), tmp_path / name / f"{seed}.safetensors", "mine", "{}")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    return tmp_path


def test_the_loss_by_hand():
    similarity = torch.tensor([[1.0, 0.0], [0.6, 0.5]])
    loss, numbers = place_loss(similarity, 0.5)
    rows = (np.log(1 + np.exp(-2)) + np.log(1 + np.exp(0.2))) / 2
    columns = (np.log(1 + np.exp(-0.8)) + np.log(1 + np.exp(-1))) / 2
    assert float(loss) == pytest.approx((rows + columns) / 2, rel=1e-5)
    assert float(numbers["recall"]) == 50.0


def test_views_that_pairs_connect_are_one_place():
    one = shard(0, places=2, views=3)
    assert _by_place(one) == [[(0, 1), (0, 2), (1, 2)], [(3, 4), (3, 5), (4, 5)]]


def test_a_batch_is_two_views_of_different_places(folder):
    settings = PlacesRecipe(
        "run", 1, {"views": 1.0}, places=20, network=NETWORK, keypoints=(16, 24), drop=0.5, crop=1.0
    )
    objective = PlacesObjective(settings)
    batch = objective.draw(0, np.random.default_rng(0))
    assert 16 <= batch.first.shape[1] <= 24
    assert batch.first.shape == (20, batch.first.shape[1], DIM)  # of 24 places in the cache
    assert 0.4 < float(batch.mask0.float().mean()) < 0.8  # half of 24
    assert len({tuple(one[0].tolist()) for one in batch.first}) == 20


def test_only_a_window_of_a_view_is_used(folder):
    settings = PlacesRecipe("run", 1, {"views": 1.0}, network=NETWORK, keypoints=(24, 24),
                            drop=0.0, crop=0.5)  # fmt: skip
    batch = PlacesObjective(settings).draw(0, np.random.default_rng(0))
    parts = batch.mask0.float().mean(1)
    assert 0.3 < float(parts.mean()) < 0.8  # of a window of 0.25 to 1 of the area
    assert (batch.first[~batch.mask0] == 0).all()


def test_from_a_recipe_to_weights_that_find_places(folder):
    assert main(["train", "places", "recipe.yaml"]) == 0
    rows = [row.split(",") for row in (folder / "run" / "log.csv").read_text().splitlines()]
    columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    assert float(columns["loss"][2]) < float(columns["loss"][0]) - 0.1
    assert float(columns["held recall"][-1]) > 65
    assert main(["train", "export", "recipe.yaml", "out.safetensors", "--provenance", "me"]) == 0
    loaded = load_places("out.safetensors")
    assert (loaded.descriptor_kind, loaded.provenance) == ("mine", "me")
    assert loaded.network.config.clusters == 8


def test_bad_recipes_and_caches_are_refused(folder):
    with pytest.raises(ConfigError, match="caches is empty"):
        PlacesRecipe("run", 1, {})
    with pytest.raises(ConfigError, match=r"range from 2 on, not \[9, 3\]"):
        PlacesRecipe("run", 1, {"views": 1.0}, keypoints=(9, 3))
    with pytest.raises(DataError, match=r"hold mine of 8 numbers.*descriptor_dim: 256"):
        PlacesObjective(PlacesRecipe("run", 1, {"views": 1.0}))
    write_shard(shard(0, places=1), folder / "few" / "0.safetensors", "mine", "{}")
    with pytest.raises(DataError, match="less than two places"):
        PlacesObjective(PlacesRecipe("run", 1, {"few": 1.0}, network=NETWORK))
