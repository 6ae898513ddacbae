import numpy as np
import pytest
import torch

from superglue_ros.errors import DataError
from superglue_ros.training.data.batches import PairSampler, SamplingConfig, collate, read_pair
from superglue_ros.training.data.cache import read_cache, write_shard

from ..conftest import synthetic_shard


def sampler(shards, **config) -> PairSampler:
    return PairSampler({"c": shards}, {"c": 1.0}, SamplingConfig(**config))


def test_shards_survive_the_disk(cache):
    shards, kind = read_cache(cache)
    assert kind == "test-kind"
    for i, shard in enumerate(shards):
        for name, value in vars(synthetic_shard(i)).items():
            assert torch.equal(getattr(shard, name), value)


def test_an_empty_folder_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no cached features"):
        read_cache(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"x\.safetensors cannot be read"):
        read_cache(tmp_path)


def test_mixed_detectors_are_refused(tmp_path):
    for name in ("a", "b"):
        write_shard(synthetic_shard(0), tmp_path / f"{name}.safetensors", name, '""')
    with pytest.raises(DataError, match=r"mixes features of a, b"):
        read_cache(tmp_path)


def test_labels_follow_their_keypoints_through_subsets_and_swaps():
    batch = sampler([synthetic_shard(0)], keypoints=12, pairs=8, mirror=False, score_noise=0.0)
    drawn = batch.draw(np.random.default_rng(0))
    assert drawn.keypoints0.shape == (8, 12, 2)
    assert drawn.mask0 is None
    matched = 0
    for p in range(8):
        for i, j in enumerate(drawn.matches0[p].tolist()):
            if j >= 0:
                matched += 1
                assert drawn.matches1[p, j] == i
                shift = drawn.keypoints1[p, j] - drawn.keypoints0[p, i]
                torch.testing.assert_close(shift.abs(), torch.tensor([4.0, 2.0]), atol=1e-3, rtol=0)
    assert matched > 20


def test_mirroring_keeps_the_labels_true():
    batch = sampler([synthetic_shard(0)], keypoints=24, pairs=32, drop=0.0, score_noise=0.0)
    drawn = batch.draw(np.random.default_rng(1))
    shifts = set()
    for p in range(32):
        i = int((drawn.matches0[p] >= 0).nonzero()[0])
        shift = drawn.keypoints1[p, drawn.matches0[p, i]] - drawn.keypoints0[p, i]
        shifts.add(tuple(shift.round().int().tolist()))
    # Two orders of the images, each as it is and mirrored.
    assert shifts == {(4, -2), (-4, 2), (-4, -2), (4, 2)}


def test_repetition_makes_matches_alike_in_both_images_and_leaves_labels_and_positions():
    def look_alikes(repetition: float) -> float:
        """Share of wrong pairs of matched keypoints whose descriptors are alike."""
        draw = sampler(
            [synthetic_shard(0)], keypoints=24, pairs=64, drop=0.0, score_noise=0.0, mirror=False,
            repetition=repetition,
        ).draw  # fmt: skip
        alike = []
        for seed in range(4):
            drawn = draw(np.random.default_rng(seed))
            for p in range(64):
                norms = torch.cat([drawn.descriptors0[p], drawn.descriptors1[p]]).norm(dim=1)
                torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-3, rtol=0)
                first = (drawn.matches0[p] >= 0).nonzero()[:, 0]
                second = drawn.matches0[p, first]
                shift = (drawn.keypoints1[p, second] - drawn.keypoints0[p, first]).abs()
                torch.testing.assert_close(shift, torch.tensor([4.0, 2.0]).expand_as(shift))
                similarity = drawn.descriptors0[p, first] @ drawn.descriptors1[p, second].T
                others = ~torch.eye(len(first), dtype=torch.bool)
                alike.append(float((similarity[others] > 0.7).float().mean()))
        return float(np.mean(alike))

    assert look_alikes(0.0) < 0.005
    assert look_alikes(0.9) > 0.015


def test_padding_is_masked_and_ignored():
    shard = synthetic_shard(1, varied=True)
    whole = collate([read_pair(shard, i) for i in range(len(shard.pairs))])
    assert whole.mask0 is not None
    counts = shard.counts[shard.pairs[:, 0].long()]
    assert whole.mask0.sum(1).tolist() == counts.tolist()
    assert (whole.matches0[~whole.mask0] == -2).all()
    assert (whole.descriptors0[~whole.mask0] == 0).all()


def test_batches_hold_pairs_of_similar_size():
    shards = [synthetic_shard(i, points=40, varied=True) for i in range(4)]
    drawer = sampler(shards, keypoints=40, pairs=6, bucket=5, drop=0.0)
    for seed in range(10):
        drawn = drawer.draw(np.random.default_rng(seed))
        mask0 = torch.ones_like(drawn.scores0) if drawn.mask0 is None else drawn.mask0
        mask1 = torch.ones_like(drawn.scores1) if drawn.mask1 is None else drawn.mask1
        larger = torch.maximum(mask0.sum(1), mask1.sum(1))
        assert larger.max() // 5 == larger.min() // 5


def test_best_first_keeps_the_best_scores():
    drawer = sampler(
        [synthetic_shard(0)], keypoints=6, pairs=4, best_first=1.0, drop=0.0, score_noise=0.0
    )
    drawn = drawer.draw(np.random.default_rng(0))
    everything = synthetic_shard(0)
    best = {tuple(row[:6].sort().values.tolist()) for row in everything.scores}
    for row in drawn.scores0:
        assert tuple(row.sort().values.tolist()) in best


def test_weights_choose_between_caches():
    near, far = synthetic_shard(0), synthetic_shard(1)
    far.sizes[:] = 50.0
    drawer = PairSampler(
        {"near": [near], "far": [far]},
        {"near": 1.0, "far": 3.0},
        SamplingConfig(keypoints=8, pairs=1),
    )
    rng = np.random.default_rng(0)
    share = np.mean([float(drawer.draw(rng).size0[0, 0]) == 50 for _ in range(400)])
    assert share == pytest.approx(0.75, abs=0.06)


def test_a_cache_without_pairs_is_refused():
    empty = synthetic_shard(0)
    with pytest.raises(DataError, match=r"cache c has no pair"):
        sampler([type(empty)(**{**vars(empty), "pairs": empty.pairs[:0]})])
