from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.errors import DataError
from superglue_ros.training.data.batches import SamplingConfig
from superglue_ros.training.data.resident import ResidentPairs

from ..conftest import synthetic_shard

CPU = torch.device("cpu")
PLAIN = SamplingConfig(
    keypoints=24, pairs=8, drop=0, best_first=1, score_noise=0, mirror=False, repetition=0
)


def draw(config, seed=0, **shards):
    caches = {name: [shard] for name, shard in shards.items()} or {
        "a": [synthetic_shard(0), synthetic_shard(1)]
    }
    pairs = ResidentPairs(caches, dict.fromkeys(caches, 1.0), config, CPU)
    return pairs.draw(np.random.default_rng(seed))


def matched(batch):
    p, i = (batch.matches0 >= 0).nonzero(as_tuple=True)
    return p, i, batch.matches0[p, i]


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_labels_stay_mutual_and_name_the_shifted_point(drop):
    batch = draw(replace(PLAIN, keypoints=16, drop=drop, best_first=0.5))
    p, i, j = matched(batch)
    assert len(p) > 20
    assert (batch.matches1[p, j] == i).all()
    moved = (batch.keypoints1[p, j] - batch.keypoints0[p, i]).abs()
    torch.testing.assert_close(
        moved, torch.tensor([[4.0, 2.0]]).expand_as(moved), atol=1e-3, rtol=0
    )
    assert batch.mask0 is None
    assert batch.scores0.shape == (8, 16)


def test_best_first_keeps_the_highest_scores_but_for_random_drops():
    shard = synthetic_shard(0, pairs=1)
    best = shard.scores[0].sort(descending=True).values[:12]
    views = draw(replace(PLAIN, keypoints=12), a=shard)
    for scores in (*views.scores0, *views.scores1):
        assert any(
            torch.equal(scores.sort(descending=True).values, s.sort(descending=True).values[:12])
            for s in shard.scores
        )
    dropped = draw(replace(PLAIN, keypoints=12, drop=0.4), a=shard)
    assert not all(torch.equal(s.sort(descending=True).values, best) for s in dropped.scores0)
    assert all(len(s.unique()) == 12 for s in dropped.scores0)


def test_both_orders_both_mirrors_and_noise_occur():
    shard = synthetic_shard(0, pairs=1)
    batch = draw(replace(PLAIN, pairs=64, mirror=True, score_noise=0.1), a=shard)
    p, i, j = matched(batch)
    move = batch.keypoints1[p, j] - batch.keypoints0[p, i]
    assert set(map(tuple, move.round().int().tolist())) == {(4, -2), (-4, -2), (-4, 2), (4, 2)}
    assert batch.scores0.max() <= 1
    assert not torch.equal(batch.scores0[0].sort().values, batch.scores0[1].sort().values)


def test_repetition_blends_matches_alike_in_both_images_and_keeps_unit_length():
    torch.manual_seed(0)
    plain = draw(PLAIN, seed=3)
    batch = draw(replace(PLAIN, repetition=0.9), seed=3)
    torch.testing.assert_close(plain.matches0, batch.matches0)
    for d in (batch.descriptors0, batch.descriptors1):
        torch.testing.assert_close(d.norm(dim=2), torch.ones(d.shape[:2]), atol=2e-3, rtol=0)
    changed0 = (batch.descriptors0 - plain.descriptors0).abs().amax(2) > 1e-3
    changed1 = (batch.descriptors1 - plain.descriptors1).abs().amax(2) > 1e-3
    p, i, j = matched(batch)
    assert changed0.any()
    assert not changed0.all(dim=1).any()
    assert torch.equal(changed0[p, i], changed1[p, j])
    assert (~changed0.any(dim=1)).any()  # half of the pairs stay


def test_caches_are_drawn_by_weight_and_a_batch_depends_on_the_generator_only():
    first, second = synthetic_shard(0), synthetic_shard(1)
    second.scores.fill_(0.5)
    caches = {"a": [first], "b": [second]}
    pairs = ResidentPairs(
        caches, {"a": 1.0, "b": 3.0}, replace(PLAIN, pairs=400), torch.device("cpu")
    )
    batch = pairs.draw(np.random.default_rng(0))
    share = (batch.scores0 == 0.5).all(dim=1).float().mean()
    assert 0.68 < share < 0.82
    again = pairs.draw(np.random.default_rng(0))
    assert torch.equal(batch.keypoints0, again.keypoints0)


def test_pairs_with_too_few_keypoints_are_left_out():
    shard = synthetic_shard(2, varied=True)
    config = replace(PLAIN, keypoints=16, pairs=64)
    batch = draw(config, a=shard)
    assert (batch.scores0 > 0).all()
    with pytest.raises(DataError, match="cache a has no pair with 25 keypoints"):
        draw(replace(PLAIN, keypoints=25), a=shard)
