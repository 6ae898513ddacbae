"""The compiled engine gives what the network gives, pair by pair and for whole windows."""

from __future__ import annotations

import math

import pytest
import torch

from superglue_ros.engines.superglue import SuperGlueEngine, _portions
from superglue_ros.networks.sinkhorn import log_sinkhorn
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
    initialise_as_optimal_matching,
)

CPU = torch.device("cpu")
SIZE = (640, 480)
VARIANTS = {
    "full": SuperGlueConfig(16, 16, 2, 4, (8, 12)),
    "projected": SuperGlueConfig(24, 16, 2, 2, (8,)),
    "no graph": SuperGlueConfig(16, 16, 2, 4, (8,), graph=False),
    "no cross-attention": SuperGlueConfig(16, 16, 2, 4, (8,), cross_attention=False),
    "no positions": SuperGlueConfig(16, 16, 1, 4, ()),
}


def random_network(config: SuperGlueConfig, seed: int = 0) -> SuperGlue:
    """All parameters and batch norm statistics random, so that nothing cancels by chance."""
    torch.manual_seed(seed)
    network = SuperGlue(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data.normal_(0, module.in_features**-0.5)
            module.bias.data.normal_(0, 0.3)
        elif isinstance(module, torch.nn.BatchNorm1d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def random_set(count: int, dim: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "keypoints": torch.rand(count, 2, generator=generator) * torch.tensor(SIZE),
        "scores": torch.rand(count, generator=generator),
        "descriptors": torch.nn.functional.normalize(
            torch.randn(count, dim, generator=generator), dim=1
        ),
    }


def reference(network: SuperGlue, a: dict, b: dict) -> torch.Tensor:
    size = torch.tensor([SIZE], dtype=torch.float32)
    sets = {f"{name}{i}": values[name][None] for i, values in enumerate((a, b)) for name in values}
    with torch.inference_mode():
        return network(**sets, size0=size, size1=size)


def match(engine, a, b):
    """Two random sets through the engine, as one pair."""
    return engine.match_pairs([engine.prepare(**a, size=SIZE)], [engine.prepare(**b, size=SIZE)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_network(variant):
    network = random_network(VARIANTS[variant])
    engine = SuperGlueEngine(network, CPU)
    dim = network.config.descriptor_dim
    a, b = random_set(23, dim, 1), random_set(17, dim, 2)
    ((k, result),) = match(engine, a, b)
    assert k == 0
    assert (result - reference(network, a, b)).abs().max() < 1e-4


@pytest.mark.parametrize("counts", [(20, 20, 20), (20, 7, 20, 1, 7), (15, 9)])
def test_a_window_gives_what_its_pairs_give(counts):
    network = random_network(VARIANTS["full"])
    engine = SuperGlueEngine(network, CPU)
    keyframes = [random_set(count, 16, seed) for seed, count in enumerate(counts)]
    frame = random_set(20, 16, 99)
    prepared = [engine.prepare(**keyframe, size=SIZE) for keyframe in keyframes]
    before = [tokens.clone() for tokens in prepared]

    queries = [engine.prepare(**frame, size=SIZE)] * len(counts)
    results = dict(engine.match_pairs(prepared, queries))

    assert sorted(results) == list(range(len(counts)))
    for k, keyframe in enumerate(keyframes):
        assert (results[k] - reference(network, keyframe, frame)).abs().max() < 1e-4
        assert torch.equal(prepared[k], before[k]), "what a keyframe keeps is not written to"


def test_pairs_of_any_sizes_go_through_together():
    network = random_network(VARIANTS["full"])
    engine = SuperGlueEngine(network, CPU)
    sizes = [(9, 17), (9, 17), (17, 9), (31, 17), (9, 31)]
    sets = [
        tuple(random_set(count, 16, 10 * seed + side) for side, count in enumerate(pair))
        for seed, pair in enumerate(sizes)
    ]
    prepared = [[engine.prepare(**one, size=SIZE) for one in pair] for pair in sets]
    results = dict(engine.match_pairs([p[0] for p in prepared], [p[1] for p in prepared]))
    assert sorted(results) == list(range(len(sizes)))
    for k, (first, second) in enumerate(sets):
        assert (results[k] - reference(network, first, second)).abs().max() < 1e-4


def test_calls_do_not_disturb_each_other():
    network = random_network(VARIANTS["full"])
    engine = SuperGlueEngine(network, CPU)
    small, large = (
        [engine.prepare(**random_set(count, 16, seed), size=SIZE) for seed in (1, 2)]
        for count in (9, 31)
    )
    first = dict(engine.match_pairs(small[:1], small[1:]))[0]
    dict(engine.match_pairs(large[:1], large[1:]))
    assert torch.equal(dict(engine.match_pairs(small[:1], small[1:]))[0], first)


def test_no_references_give_nothing():
    network = random_network(VARIANTS["full"])
    engine = SuperGlueEngine(network, CPU)
    assert list(engine.match_pairs([], [])) == []
    assert engine.prepare(**random_set(0, 16, 0), size=SIZE).shape == (0, 16)


def test_optimal_matching_start_is_the_layer_on_raw_descriptors():
    network = SuperGlue(VARIANTS["full"]).eval()
    initialise_as_optimal_matching(network, scale=12.0)
    engine = SuperGlueEngine(network, CPU)
    a, b = random_set(12, 16, 3), random_set(10, 16, 4)
    ((_, result),) = match(engine, a, b)
    cosine = a["descriptors"] @ b["descriptors"].T
    assert (result - log_sinkhorn(12 * cosine[None], network.dustbin)).abs().max() < 1e-4


def test_bfloat16_is_near():
    network = random_network(VARIANTS["full"])
    engine = SuperGlueEngine(network, CPU, torch.bfloat16)
    a, b = random_set(23, 16, 1), random_set(17, 16, 2)
    ((_, result),) = match(engine, a, b)
    difference = (result.exp() - reference(network, a, b).exp())[:, :-1, :-1].abs().max()
    assert 0 < difference < 0.05


def test_portions_hold_every_pair_once_and_keep_to_the_limit():
    sizes = [(30, 40), (5, 7), (30, 40), (100, 90), (5, 7)]
    references = [torch.zeros(m, 8) for m, _ in sizes]
    queries = [torch.zeros(n, 8) for _, n in sizes]
    portions = _portions(references, queries, 140)
    assert sorted(k for portion in portions for k in portion) == list(range(5))
    tokens = [sum(sum(sizes[k]) for k in portion) for portion in portions]
    assert tokens == [94, 70, 190]  # the last alone is above the limit
    assert len(_portions(references, queries, math.inf)) == 1
    assert _portions([], [], 140) == []


def test_portions_change_no_scores(monkeypatch):
    torch.manual_seed(0)
    engine = SuperGlueEngine(
        SuperGlue(SuperGlueConfig(16, 16, 2, 2, (8,))).eval(), torch.device("cpu")
    )

    def features(count: int) -> torch.Tensor:
        return engine.prepare(
            torch.rand(count, 2) * 100, torch.rand(count), torch.randn(count, 16), (100, 100)
        )

    references, query = [features(n) for n in (9, 5, 9, 12)], features(7)
    whole = dict(engine.scores(references, [query] * len(references)))
    monkeypatch.setattr("superglue_ros.engines.superglue._CPU_TOKENS", 20)
    parts = dict(engine.scores(references, [query] * len(references)))
    assert whole.keys() == parts.keys() == set(range(4))
    for k, scores in whole.items():
        torch.testing.assert_close(parts[k], scores)
