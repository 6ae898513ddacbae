"""The options of SuperGlue against their formulas, written out anew in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from superglue_ros.engines.export import SuperGlueAssignment, export_superglue
from superglue_ros.engines.plain import PlainSuperGlueEngine, torch_engine
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.errors import ConfigError
from superglue_ros.networks.aggregation import Pooling, make_aggregation
from superglue_ros.networks.attention import attention_weights, top_k_attention
from superglue_ros.networks.clusters import (
    CANDIDATES,
    cluster_count,
    hierarchical_assignment,
    k_means,
)
from superglue_ros.networks.edges import PositionBias, edge_geometry
from superglue_ros.networks.matching import IterationPredictor
from superglue_ros.networks.nodes import Nodes
from superglue_ros.networks.position_encoding import position_features
from superglue_ros.networks.sinkhorn import (
    augment,
    log_sinkhorn,
    sinkhorn,
    soft_stop,
    training_sinkhorn,
)
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig, with_options
from superglue_ros.networks.topology import CELLS, Lattice, adaptive_edges

CPU = torch.device("cpu")
SIZE = (640, 480)
SMALL = {"descriptor_dim": 16, "width": 16, "layers": 2, "heads": 2, "keypoint_encoder": (8,)}
OPTIONS = {
    "sinusoids": {"sinusoids": 3},
    "edges": {"edges": 4},
    "mean": {"aggregation": "mean"},
    "max": {"aggregation": "max"},
    "mean with edges": {"aggregation": "mean", "edges": 4},
    "max of neighbours": {"aggregation": "max", "neighbours": 3},
    "temperature": {"temperature": 0.7},
    "dustbins": {"separate_dustbins": True},
    "top-k": {"top_k": 5, "top_k_block": 4},
    "top-k of each query": {"top_k": 5, "top_k_block": 1},
    "position bias": {"position_bias": 0.16},
    "neighbours": {"neighbours": 3, "neighbour_cosine": 0.3},
    "scales": {"scales": (1.0, 0.5, 0.1)},
    "scales with edges": {"scales": (0.25, 0.1), "edges": 3},
    "pruning": {"prune": 0.05},
    "iterations": {"learned_iterations": 30},
    "hierarchy": {"hierarchy": 2},
    "uncertainty": {"uncertainty": True},
    "many": {
        "sinusoids": 2, "edges": 3, "position_bias": 0.2, "neighbours": 4, "prune": 0.02,
        "scales": (1.0, 0.25), "temperature": 2.0, "separate_dustbins": True,
        "learned_iterations": 20, "uncertainty": True,
    },
}  # fmt: skip
every_option = pytest.mark.parametrize("option", OPTIONS)


def network_of(**options) -> SuperGlue:
    """All parameters and batch norm statistics random, so that nothing cancels by chance."""
    torch.manual_seed(0)
    network = SuperGlue(SuperGlueConfig(**{**SMALL, **options})).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.3)
            elif isinstance(module, torch.nn.BatchNorm1d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        if network.stop is not None:
            network.stop.linear.bias.fill_(-0.5)
    return network


def random_set(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "keypoints": torch.rand(count, 2, generator=generator) * torch.tensor(SIZE),
        "scores": torch.rand(count, generator=generator),
        "descriptors": torch.nn.functional.normalize(
            torch.randn(count, 16, generator=generator), dim=1
        ),
    }


def together(pairs: list[tuple[dict, dict]]) -> dict[str, torch.Tensor]:
    """A padded batch of pairs, with masks; what stands in the padding is not zero."""
    batch = {}
    for side in (0, 1):
        length = max(len(pair[side]["scores"]) for pair in pairs)
        for name in ("keypoints", "scores", "descriptors"):
            values = [pair[side][name] for pair in pairs]
            padded = [
                torch.cat([x, x.new_full((length - len(x), *x.shape[1:]), 7)]) for x in values
            ]
            batch[f"{name}{side}"] = torch.stack(padded)
        counts = torch.tensor([[len(pair[side]["scores"])] for pair in pairs])
        batch[f"mask{side}"] = torch.arange(length)[None] < counts
        batch[f"size{side}"] = torch.tensor([SIZE], dtype=torch.float32).expand(len(pairs), 2)
    return batch


def alone(network: SuperGlue, pair: tuple[dict, dict]) -> torch.Tensor:
    with torch.inference_mode():
        return network(**together([pair]))[0]


# -- every option: padded batches, engines, files


@every_option
def test_a_padded_batch_gives_what_its_pairs_give(option):
    network = network_of(**OPTIONS[option])
    counts = [(23, 17), (9, 20), (23, 4)]
    pairs = [(random_set(m, 2 * i), random_set(n, 2 * i + 1)) for i, (m, n) in enumerate(counts)]
    with torch.inference_mode():
        found = network(**together(pairs))
    for row, pair, (m, n) in zip(found, pairs, counts, strict=True):
        expected = alone(network, pair)
        rows, columns = [*range(m), -1], [*range(n), -1]
        torch.testing.assert_close(row[rows][:, columns], expected, atol=2e-4, rtol=1e-4)
        assert (row[m:-1] == -torch.inf).all()
        assert (row[:, n:-1] == -torch.inf).all()


@every_option
def test_the_engine_gives_what_the_network_gives(option):
    network = network_of(**OPTIONS[option])
    engine = torch_engine(network, CPU)
    sets = [random_set(count, seed) for seed, count in enumerate((23, 17, 20, 20))]
    prepared = [engine.prepare(**one, size=SIZE) for one in sets]
    results = dict(engine.match_pairs(prepared[::2], prepared[1::2]))
    for k, pair in enumerate(zip(sets[::2], sets[1::2], strict=True)):
        expected = alone(network, pair)
        finite = torch.isfinite(expected)
        assert torch.equal(torch.isfinite(results[k][0]), finite)
        assert (results[k][0] - expected)[finite].abs().max() < 3e-4


@every_option
def test_a_network_is_written_and_read(option, tmp_path):
    from superglue_ros.networks.weights import load_superglue, save

    network = network_of(**OPTIONS[option])
    save(network, tmp_path / "g.safetensors", "kind", "test")
    read = load_superglue(tmp_path / "g.safetensors").network
    assert read.config == network.config
    pair = random_set(9, 1), random_set(8, 2)
    assert torch.equal(alone(read, pair), alone(network, pair))


def test_options_that_an_engine_lacks_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"does not have the network's edges"):
        SuperGlueEngine(network_of(edges=4), CPU)
    assert isinstance(torch_engine(network_of(edges=4), CPU), PlainSuperGlueEngine)
    assert isinstance(torch_engine(network_of(top_k=4), CPU), SuperGlueEngine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "median"}, "must be one of attention, mean, max"),
        ({"top_k": -1}, "top_k must be from 0 to 4096, not -1"),
        ({"top_k": 4, "edges": 2}, "top_k does not work with edges"),
        ({"aggregation": "max", "prune": 0.1}, "aggregation does not work with prune"),
        ({"scales": (2.0,)}, "scales must be a list of numbers"),
        ({"sinusoids": 2, "keypoint_encoder": ()}, "sinusoids is read by the keypoint encoder"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SuperGlueConfig(**{**SMALL, **options})


@pytest.mark.parametrize("option", ["sinusoids", "temperature", "dustbins"])
def test_the_graph_for_export_has_the_options_that_it_takes(option):
    network = network_of(**OPTIONS[option])
    pairs = [(random_set(9, 1), random_set(12, 2)), (random_set(7, 3), random_set(5, 4))]
    batch = together(pairs)
    with torch.inference_mode():
        found = SuperGlueAssignment(network, 100)(**batch)
    for row, pair in zip(found, pairs, strict=True):
        rows, columns = ([*range(len(side["scores"])), -1] for side in pair)
        expected = alone(network, pair)
        torch.testing.assert_close(row[rows][:, columns], expected, atol=1e-3, rtol=1e-3)


def test_the_export_refuses_other_options_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"does not have the network's edges, uncertainty"):
        export_superglue(network_of(edges=2, uncertainty=True), "kind", tmp_path / "g.onnx")


# -- formulas


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def qkv(m: int, n: int, c: int = 4, heads: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, count, c, generator=generator) for count in (m, n, n)]


def test_sinusoids():
    xy, scores = torch.tensor([[[0.3, -0.2]]]), torch.tensor([[0.9]])
    expected = [
        [function(math.pi * 2**k * value) for value in (0.3, -0.2) for k in range(2)]
        for function in (math.sin, math.cos)
    ]
    found = position_features(xy, scores, 2)[0, 0]
    np.testing.assert_allclose(found, [*expected[0], *expected[1], 0.9], atol=1e-6)
    assert torch.equal(position_features(xy, scores, 0)[0, 0], torch.tensor([0.3, -0.2, 0.9]))


def test_edge_features_of_attention():
    options = SuperGlueConfig(**{**SMALL, "edges": 3})
    torch.manual_seed(0)
    module = make_aggregation(options)
    edges = module.edges
    with torch.no_grad():
        for parameter in edges.parameters():
            parameter.normal_()
    q, k, v = qkv(5, 6, c=8)
    p, r = torch.randn(1, 5, 2), torch.randn(1, 6, 2)
    found = module(q, k, v, Nodes(q, p), Nodes(k, r))[0].detach().numpy()

    def linear(layer, x):
        return x @ layer.weight.detach().numpy().T + (
            0 if layer.bias is None else layer.bias.detach().numpy()
        )

    a, b = p[0].numpy(), r[0].numpy()
    for i in range(5):
        features = [
            [
                np.linalg.norm(a[i] - b[j]),
                *(a[i] - b[j]),
                a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]),
            ]
            for j in range(6)
        ]
        e = linear(edges.mlp[2], np.maximum(linear(edges.mlp[0], np.array(features)), 0))
        for h in range(2):
            logits = q[0, h, i].numpy() @ k[0, h].numpy().T / 8**0.5 + linear(edges.bias, e)[:, h]
            values = v[0, h].numpy() + linear(edges.value, e)[:, 8 * h : 8 * h + 8]
            np.testing.assert_allclose(found[h, i], softmax(logits) @ values, atol=1e-4)


def test_edges_start_without_effect_and_learn():
    network = network_of()
    edged = SuperGlue(SuperGlueConfig(**{**SMALL, "edges": 3})).eval()
    edged.load_state_dict(network.state_dict(), strict=False)
    pair = random_set(9, 1), random_set(8, 2)
    torch.testing.assert_close(alone(edged, pair), alone(network, pair), atol=1e-4, rtol=1e-4)
    edged.train()(**together([pair]))[0, 0, 0].backward()
    assert edged.gnn[1].aggregation.edges.value.weight.grad.abs().max() > 0


def test_edge_geometry_is_finite_where_keypoints_coincide_or_are_the_centre():
    points = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.5, 0.1]]], requires_grad=True)
    edge_geometry(points, points).sum().backward()
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("extra", [{}, {"edges": 3}, {"neighbours": 2, "neighbour_cosine": 1.0}])
def test_pooled_messages(mode, extra):
    torch.manual_seed(1)
    module = make_aggregation(SuperGlueConfig(**{**SMALL, "aggregation": mode, **extra}))
    assert isinstance(module, Pooling)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    q, _, v = qkv(5, 6, c=8)
    x, y = torch.randn(1, 5, 16), torch.randn(1, 6, 16)
    xy = torch.randn(1, 5, 2), torch.randn(1, 6, 2)
    mask = torch.tensor([[True] * 5 + [False]])
    to, source = Nodes(x, xy[0]), Nodes(y, xy[1], mask)
    found = module(q, None, v, to, source)[0].detach().numpy()
    pairwise = q[0].numpy()[:, :, None] + v[0].numpy()[:, None]  # (H, M, N, C)
    if "edges" in extra:
        e = module.edges.value(module.edges(*xy))[0].detach().numpy()  # (M, N, H C)
        pairwise = pairwise + e.reshape(5, 6, 2, 8).transpose(2, 0, 1, 3)
    pairwise = np.maximum(pairwise, 0)
    for i in range(5):
        there = list(range(5))
        if "neighbours" in extra:
            cosine = [float(torch.cosine_similarity(x[0, i], y[0, j], dim=0)) for j in range(5)]
            there = np.argsort(cosine)[-2:]
        chosen = pairwise[:, i, there]
        expected = chosen.max(axis=1) if mode == "max" else chosen.mean(axis=1)
        np.testing.assert_allclose(found[:, i], expected, atol=1e-5)


def test_the_gradient_of_the_mean_is_that_of_pairwise_messages():
    torch.manual_seed(0)
    module = make_aggregation(SuperGlueConfig(**{**SMALL, "aggregation": "mean"}))
    q, _, v = (x.double().requires_grad_(True) for x in qkv(5, 6, c=8))
    nodes = Nodes(q), Nodes(v)
    weight = torch.randn(1, 2, 5, 8)
    (module(q, None, v, *nodes) * weight).sum().backward()
    found = q.grad.clone(), v.grad.clone()
    q.grad = v.grad = None
    (((q.unsqueeze(3) + v.unsqueeze(2)).relu().mean(3)) * weight).sum().backward()
    torch.testing.assert_close(found, (q.grad, v.grad), atol=1e-5, rtol=1e-4)


def test_separate_dustbins():
    z = augment(torch.zeros(1, 2, 3), torch.tensor([1.5, -2.0]))[0]
    expected = [[0, 0, 0, 1.5], [0, 0, 0, 1.5], [-2, -2, -2, 0]]
    assert z.tolist() == expected
    assert augment(torch.zeros(1, 1, 1), torch.tensor(3.0))[0].tolist() == [[0, 3], [3, 3]]


def test_temperature_divides_the_scores_and_learns():
    plain, warm = network_of(), network_of(temperature=0.5)
    warm.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 5, 16), torch.randn(1, 4, 16)
    mask = torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    expected = plain.score_matrix(*x, *mask) * 16**0.5 / 0.5
    found = warm.score_matrix(*x, *mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert float(warm.log_temperature.grad) == pytest.approx(-float(found.detach().sum()), rel=1e-3)


def test_top_k_of_each_query_is_the_report_s_sparse_attention():
    q, k, v = qkv(7, 9)
    found = top_k_attention(q, k, v, None, None, 3, 1)[0].numpy()
    for h in range(2):
        logits = q[0, h].numpy() @ k[0, h].numpy().T / 2
        for i in range(7):
            best = np.argsort(logits[i])[-3:]
            expected = softmax(logits[i, best]) @ v[0, h].numpy()[best]
            np.testing.assert_allclose(found[h, i], expected, atol=1e-5)


def test_blocks_attend_to_the_keys_that_suit_any_of_their_queries_best():
    """Two tight groups of queries: each block attends to the keys of its own direction."""
    torch.manual_seed(0)
    directions = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0]])
    group = torch.tensor([0, 1] * 8)
    q = (directions[group] + 0.1 * torch.randn(16, 4))[None, None]
    k = (directions[group] + 0.1 * torch.randn(16, 4))[None, None]
    one_hot = torch.eye(16)[None, None]
    weights = top_k_attention(q, k, one_hot, None, None, 8, 8)[0, 0]
    assert ((weights > 0) == (group[:, None] == group[None])).all()
    logits = (q @ k.transpose(2, 3) / 2)[0, 0].masked_fill(
        group[:, None] != group[None], -torch.inf
    )
    torch.testing.assert_close(weights, logits.softmax(dim=1))


def test_all_keys_are_the_dense_attention():
    q, k, v = qkv(7, 9)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(top_k_attention(q, k, v, None, None, 9, 4), dense)


def test_position_bias():
    module = PositionBias(0.7, 2)  # a reach of one in normalised positions
    module.weight.data = torch.tensor([1.0, -2.0])
    p = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    found = module(*p)[0, :, 0].detach()
    near = math.exp(-5)
    np.testing.assert_allclose(found, [[near, 1], [-2 * near, -2]], atol=1e-5)


def test_position_bias_is_added_to_the_similarities():
    torch.manual_seed(0)
    module = make_aggregation(SuperGlueConfig(**{**SMALL, "position_bias": 0.3}))
    q, k, v = qkv(5, 6, c=8)
    p, r = torch.rand(1, 5, 2), torch.rand(1, 6, 2)
    found = module(q, k, v, Nodes(q, p), Nodes(k, r))[0].detach().numpy()
    distance = np.linalg.norm(p[0].numpy()[:, None] - r[0].numpy()[None], axis=2)
    for h in range(2):
        logits = q[0, h].numpy() @ k[0, h].numpy().T / 8**0.5 + np.exp(-distance * 0.7 / 0.3)
        np.testing.assert_allclose(found[h], softmax(logits) @ v[0, h].numpy(), atol=1e-5)


def test_adaptive_edges():
    torch.manual_seed(3)
    x, y = torch.randn(1, 6, 4), torch.randn(1, 7, 4)
    mask = torch.tensor([[True] * 6 + [False]])
    found = adaptive_edges(Nodes(x), Nodes(y, mask=mask), 2, 0.4)[0].numpy()
    a, b = (z[0].numpy() / np.linalg.norm(z[0].numpy(), axis=1, keepdims=True) for z in (x, y))
    cosine = (a @ b.T)[:, :6]
    for i in range(6):
        expected = set(np.argsort(cosine[i])[-2:]) | set(np.flatnonzero(cosine[i] > 0.4))
        assert set(np.flatnonzero(found[i])) == expected
    assert len({int(n) for n in found.sum(axis=1)}) > 1  # the threshold adds edges


def test_a_lattice_pools_the_mean_of_its_cells_and_gives_it_back():
    edge = 0.5 / 0.7
    xy = torch.tensor([[[-edge, -edge], [-edge + 0.01, -edge + 0.01], [edge, edge], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, True, False]])
    x = torch.tensor([[[2.0], [4.0], [7.0], [100.0]]])
    lattice = Lattice(Nodes(x, xy, mask), 2 / CELLS)
    assert lattice.cells == 4
    assert lattice.nodes.x[0, :, 0].tolist() == [3, 0, 0, 7]
    assert lattice.nodes.mask[0].tolist() == [True, False, False, True]
    back = lattice.unpool(lattice.pool(x[:, None]))[0, 0, :3, 0]
    assert back.tolist() == [3, 3, 7]


def test_scales_concatenate_the_messages_of_the_lattices():
    torch.manual_seed(0)
    module = make_aggregation(SuperGlueConfig(**{**SMALL, "scales": (1.0, 2 / CELLS)}))
    q, k, v = qkv(6, 6, c=8)
    xy = torch.tensor(
        [[[-0.3, -0.3], [-0.2, -0.1], [0.3, -0.3], [0.2, 0.2], [0.1, 0.3], [-0.3, 0.2]]]
    )
    cells = np.array([0, 0, 1, 3, 3, 2])
    nodes = Nodes(torch.randn(1, 6, 16), xy)
    found = module(q, k, v, nodes, nodes)[0].numpy()
    for h in range(2):
        a, b, c = (x[0, h].numpy() for x in (q, k, v))
        np.testing.assert_allclose(found[h, :, :8], softmax(a @ b.T / 8**0.5) @ c, atol=1e-5)
        pooled = [np.stack([x[cells == cell].mean(axis=0) for cell in range(4)]) for x in (a, b, c)]
        coarse = softmax(pooled[0] @ pooled[1].T / 8**0.5) @ pooled[2]
        np.testing.assert_allclose(found[h, :, 8:], coarse[cells], atol=1e-5)


def test_pruned_weights_are_zero_and_the_rest_sums_to_one():
    q, k, _ = qkv(5, 9)
    found = attention_weights(q, k, prune=0.12)[0].numpy()
    for h in range(2):
        weights = softmax(q[0, h].numpy() @ k[0, h].numpy().T / 2)
        expected = weights * (weights > 0.12)
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found[h], expected, atol=1e-5)
    assert (found == 0).any()


def test_where_all_weights_are_small_the_largest_stays():
    q, k = torch.tensor([[[[1.0]]]]), torch.linspace(0, 0.01, 50).view(1, 1, 50, 1)
    weights = attention_weights(q, k, prune=0.5)[0, 0, 0]
    assert weights[-1] == 1
    assert weights[:-1].abs().sum() == 0


def test_pruning_acts_in_inference_alone():
    network, plain = network_of(prune=0.2), network_of()
    pair = random_set(20, 1), random_set(20, 2)
    difference = alone(network, pair) - alone(plain, pair)
    assert difference.abs().max() > 1e-3
    trained = [one.train()(**together([pair])) for one in (network, plain)]
    torch.testing.assert_close(*trained, atol=1e-4, rtol=1e-4)


# -- the number of iterations


def test_a_soft_stop_interpolates_the_potentials():
    potentials = torch.arange(12.0).view(4, 1, 3).expand(4, 2, 3)
    found = soft_stop(potentials, torch.tensor([1.0, 2.25]))
    assert found.tolist() == [[0, 1, 2], [3.75, 4.75, 5.75]]
    assert soft_stop(potentials, torch.tensor([9.0, 0.0]))[:, 0].tolist() == [9, 0]


@pytest.mark.parametrize("form", [log_sinkhorn, training_sinkhorn])
def test_whole_numbers_of_iterations_are_those_of_each_pair(form):
    torch.manual_seed(0)
    scores, dustbin = 3 * torch.randn(2, 6, 5), torch.tensor(1.0)
    mask0 = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    mask1 = torch.ones(2, 5, dtype=torch.bool)
    found = form(scores, dustbin, torch.tensor([3.0, 8.0]), mask0, mask1)
    for i, count in enumerate((3, 8)):
        expected = form(scores, dustbin, count, mask0, mask1)[i]
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", [log_sinkhorn, training_sinkhorn])
def test_the_number_of_iterations_has_the_gradient_of_what_another_one_changes(form):
    torch.manual_seed(0)
    scores, dustbin = 3 * torch.randn(1, 6, 5), torch.tensor(1.0)
    count = torch.tensor([3.4], requires_grad=True)
    value = form(scores, dustbin, count)[0, 0, 0]
    value.backward()
    change = form(scores, dustbin, 4)[0, 0, 0] - form(scores, dustbin, 3)[0, 0, 0]
    assert float(count.grad) == pytest.approx(float(change), abs=1e-4)
    assert abs(float(change)) > 1e-3


def test_predicted_iterations():
    head = IterationPredictor(4, 100)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        head.linear.bias.zero_()
    f0, f1 = torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)
    f0[..., 0] = torch.tensor([1.0, 3.0, 50.0])  # the last is padding
    mask0, mask1 = torch.tensor([[True, True, False]]), torch.tensor([[True, True]])
    exact = 1 + 99 / (1 + math.exp(-(2 + 0) / 2))
    with torch.no_grad():
        assert float(head.train()(f0, f1, mask0, mask1, 1000)) == pytest.approx(exact, rel=1e-5)
        assert float(head.eval()(f0, f1, mask0, mask1, 1000)) == math.ceil(exact)
        assert float(head(f0, f1, mask0, mask1, 7)) == 7


# -- clusters


def test_k_means_finds_groups_whatever_the_order():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(4, (40,), generator=generator)
    centres = torch.tensor([[0.0, 0], [0, 9], [9, 0], [9, 9.0]])
    x = centres[groups] + torch.randn(40, 2, generator=generator)
    _, labels = k_means(x, 4)
    assert ((labels[:, None] == labels[None]) == (groups[:, None] == groups[None])).all()
    order = torch.randperm(40, generator=generator)
    _, again = k_means(x[order], 4)
    assert torch.equal(again, labels[order])


def test_clusters_have_two_to_the_levels_keypoints():
    assert [cluster_count(n, 7) for n in (4096, 1000, 100, 0)] == [32, 7, 1, 1]


def descriptors(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Descriptors of both images, and the partner of each keypoint of image A."""
    generator = torch.Generator().manual_seed(1)
    f0 = 4 * torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=1)
    order = torch.randperm(count, generator=generator)
    f1 = f0[order] + 0.1 * torch.randn(count, 8, generator=generator)
    return f0, f1, order.argsort()


def test_keypoints_match_within_their_clusters():
    f0, f1, partner = descriptors(96)
    dustbin = torch.tensor(8.0)
    flat = sinkhorn((f0 @ f1.T)[None], dustbin, 50)[0]
    found = hierarchical_assignment(f0, f1, dustbin, 50, 3, sinkhorn)[0]
    across = found[:-1, :-1] == -torch.inf
    assert 0.5 < across.float().mean() < 1 - 0.5 / CANDIDATES
    right = [(one[:-1, :-1].argmax(dim=1) == partner).float().mean() for one in (flat, found)]
    assert right[0] > 0.98
    assert right[1] > 0.9
    torch.testing.assert_close(found[:-1].exp().sum(dim=1), torch.ones(96), atol=1e-2, rtol=0)


def test_few_keypoints_are_matched_at_once():
    f0, f1, _ = descriptors(20)
    dustbin = torch.tensor(8.0)
    flat = sinkhorn((f0 @ f1.T)[None], dustbin, 50)
    assert torch.equal(hierarchical_assignment(f0, f1, dustbin, 50, 4, sinkhorn), flat)


def test_doubt_takes_from_the_log_odds_of_a_match():
    sure, doubting = network_of(), network_of(uncertainty=True)
    doubting.load_state_dict(sure.state_dict(), strict=False)
    with torch.no_grad():
        doubting.doubt.linear.weight.zero_()
        doubting.doubt.linear.bias.fill_(0.4)  # 0.8 of both images together
        doubting.doubt.log_scale.fill_(math.log(1.5))
    pair = random_set(9, 1), random_set(8, 2)
    before, after = alone(sure, pair).exp(), alone(doubting, pair).exp()
    p = before[:-1, :-1].double().numpy()
    expected = 1 / (1 + np.exp(-(1.5 * np.log(p / (1 - p)) - 0.8)))
    np.testing.assert_allclose(after[:-1, :-1], expected, atol=1e-5)
    torch.testing.assert_close(after[:, -1], before[:, -1])


def test_without_training_there_is_no_doubt():
    sure = network_of()
    new = SuperGlue(SuperGlueConfig(**{**SMALL, "uncertainty": True})).eval()
    new.load_state_dict(sure.state_dict(), strict=False)
    pair = random_set(9, 1), random_set(8, 2)
    torch.testing.assert_close(alone(new, pair), alone(sure, pair), atol=1e-4, rtol=1e-4)


def test_options_without_parameters_are_switched_on():
    network = network_of(edges=3)
    made = with_options(network, neighbours=4, hierarchy=2)
    assert (made.config.neighbours, made.config.hierarchy, made.config.edges) == (4, 2, 3)
    assert made.final.weight.equal(network.final.weight)
    assert not made.training
    with pytest.raises(RuntimeError, match="log_temperature"):
        with_options(network, temperature=2.0)
