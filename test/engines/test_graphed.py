"""The functions that META graphs record: fixed shapes, no waiting, the results of the plain way.

Here they run as they are, on the CPU; ``test_cuda_graphs.py`` records them on a GPU.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import types
import weakref

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from superglue_ros.engines.detection import Detection, Detector, GraphedDetector
from superglue_ros.engines.graphed import GraphedSuperGlueEngine
from superglue_ros.engines.padded import PaddedSuperGlue, sizes_up_to
from superglue_ros.engines.precision import made_up_pair
from superglue_ros.engines.resident import hold, take
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig

CPU = torch.device("cpu")
META = torch.device("meta")
WIDTH = 16
ITERATIONS = 20


@pytest.fixture(scope="module")
def network() -> SuperGlue:
    torch.manual_seed(0)
    config = SuperGlueConfig(WIDTH, WIDTH, layers=2, heads=2, keypoint_encoder=(8,))
    network = SuperGlue(config).eval()
    network.final.weight.data.copy_(5 * torch.eye(WIDTH))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def engines(network) -> tuple[SuperGlueEngine, GraphedSuperGlueEngine]:
    return (
        SuperGlueEngine(network, CPU),
        GraphedSuperGlueEngine(network, CPU, max_keypoints=200, iterations=ITERATIONS),
    )


def sets(engine, counts, seed=0):
    """Prepared sets of an engine; those of neighbouring numbers have keypoints in common."""
    made = [made_up_pair(WIDTH, seed, max(counts))[i % 2] for i in range(len(counts))]
    return [
        engine.prepare(*(values[:count] for values in one), (640, 480))
        for one, count in zip(made, counts, strict=True)
    ]


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, (128,)), (128, (128,)), (129, (128, 129)), (1000, (128, 256, 512, 1000)),
        (1024, (128, 256, 512, 1024)),
    ],
)  # fmt: skip
def test_sizes_double_and_end_with_the_maximum(most, sizes):
    assert sizes_up_to(most) == sizes


@pytest.mark.parametrize("counts", [(1, 1), (3, 128), (129, 77), (200, 200), (128, 128)])
def test_a_pair_is_that_of_the_plain_engine(engines, counts):
    plain, graphed = engines
    own, other = sets(plain, counts), sets(graphed, counts)
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)
    ((_, expected),) = plain.match_pairs([own[0]], [own[1]], ITERATIONS)
    ((_, found),) = graphed.match_pairs([other[0]], [other[1]], ITERATIONS)
    assert found.shape == (1, counts[0] + 1, counts[1] + 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pairs", [1, 2, 3, 8, 11])
def test_a_window_has_the_matches_of_the_plain_engine(engines, pairs):
    """Also with a set that fits no graph among them, and more pairs than a batch holds."""
    counts = [(40, 200, 130, 201, 90)[i % 5] for i in range(pairs)]
    outcomes = []
    for engine in engines:
        references = sets(engine, counts, seed=1)
        queries = sets(engine, [150] * 2, seed=1)[1:] * pairs
        outcomes.append(dict(engine.partners(references, queries, ITERATIONS)))
    expected, found = outcomes
    assert found.keys() == expected.keys() == set(range(pairs))
    for k in found:
        assert found[k][0].dtype == np.int32
        assert (found[k][0] == expected[k][0]).all()
        assert np.abs(found[k][1] - expected[k][1]).max() < 1e-4
    assert (found[0][0] >= 0).sum() > 5


def test_other_iterations_are_recorded_anew(engines):
    plain, graphed = engines
    a, b = sets(plain, (50, 60))
    ((_, expected),) = plain.match_pairs([a], [b], 3)
    ((_, found),) = graphed.match_pairs([a], [b], 3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def texture(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width), np.uint8)


def point_engine(device=CPU) -> SuperPointEngine:
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 4, 8, 8), 8, 16)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=2 * module.weight[0].numel() ** -0.5)
    return SuperPointEngine(network.requires_grad_(False), device)


def detection(**changes) -> Detection:
    values = {"max_keypoints": 60, "threshold": 0.005, "nms_radius": 3, "border": 4}
    return Detection(**(values | {"subpixel": True, "exact": True} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"max_keypoints": 5000}, {"threshold": 0.03}, {"threshold": 1.0}, {"subpixel": False},
        {"nms_radius": 0}, {"border": 0}, {"border": 24}, {"exact": False},
    ],
)  # fmt: skip
def test_keypoints_are_those_of_the_plain_way(changes):
    engine, settings = point_engine(), detection(**changes)
    images = texture(2, 48, 64)
    graphed = GraphedDetector(engine, CPU)
    expected = Detector(engine, CPU)(images, 46, 61, settings)
    for _ in range(2):  # the second time from the function of fixed shapes
        found = graphed(images, 46, 61, settings)
        for one, other in zip(found, expected, strict=True):
            assert one.keypoints.shape == other.keypoints.shape
            assert np.abs(one.keypoints - other.keypoints).max(initial=0) < 1e-4
            assert np.abs(one.scores - other.scores).max(initial=0) < 1e-6
            assert np.abs(one.descriptors - other.descriptors).max(initial=0) < 1e-5
    assert (found[0].on_device.numpy() == found[0].descriptors).all()


def test_a_size_is_recorded_when_it_comes_again_and_new_settings_are_obeyed():
    detector = GraphedDetector(point_engine(), CPU)
    images = texture(1, 48, 64)
    kinds = [detector(images, 48, 64, detection())[0].on_device is not None for _ in range(3)]
    assert kinds == [False, True, True]
    few = detection(max_keypoints=7)
    assert [len(detector(images, 48, 64, few)[0].keypoints) for _ in range(2)] == [7, 7]


def without_values(value):
    """``value`` with every tensor in it replaced by one without values; call it in fake mode."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
    if isinstance(value, torch.device):
        return META
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_values, value))
    if dataclasses.is_dataclass(value):
        fields = {
            one.name: without_values(getattr(value, one.name)) for one in dataclasses.fields(value)
        }
        return type(value)(**fields)
    return value


def operations(engine, function, *inputs) -> set[str]:
    """What ``function(engine, *inputs)`` launches, traced on tensors that have no values.

    Asking for a value raises, as does a shape that depends on one.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        mode.allow_meta = True
        moved = copy.copy(engine)
        vars(moved).update({name: without_values(value) for name, value in vars(engine).items()})
        traced = make_fx(lambda *given: function(moved, *given))(*map(without_values, inputs))
    nodes = [node for node in traced.graph.nodes if node.op == "call_function"]
    moves = {str(node.target) for node in nodes if "device" in node.kwargs and node.args}
    moves &= {"aten._to_copy.default"}
    return {str(node.target) + " between devices" * (str(node.target) in moves) for node in nodes}


def between_host_and_device(names: set[str]) -> list[str]:
    """Copies, which no graph can record: constants from the host, and results to it."""
    return [name for name in names if "lift_fresh" in name or "between devices" in name]


@torch.no_grad()
def test_matching_waits_for_nothing(network):
    engine = SuperGlueEngine(network, CPU)
    counts = torch.zeros(2, 3, dtype=torch.int64)
    tokens = torch.zeros(2, 3, 128, WIDTH)

    def match(moved, *given):
        return PaddedSuperGlue(moved).match(*given, iterations=7)

    names = operations(engine, match, tokens, counts)
    assert any("bmm" in name for name in names)
    assert not between_host_and_device(names)
    assert not between_host_and_device(operations(engine, match, tokens, None))


@torch.no_grad()
def test_encoding_waits_for_nothing(network):
    shapes = ((128, 2), (128,), (128, WIDTH), (1, 2))
    inputs = [torch.zeros(shape) for shape in shapes] + [torch.zeros(1, 1, dtype=torch.int64)]

    def prepare(moved, *given):
        return PaddedSuperGlue(moved).prepare(*given)

    assert not between_host_and_device(operations(SuperGlueEngine(network, CPU), prepare, *inputs))


@torch.no_grad()
def test_detection_waits_for_nothing():
    def detect(moved, images):
        return GraphedDetector(moved, CPU).features(images, 46, 61, detection())

    images = torch.zeros(2, 48, 64, dtype=torch.uint8)
    names = operations(point_engine(), detect, images)
    assert any("topk" in name for name in names)
    assert not between_host_and_device(names)


@torch.no_grad()
@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x[x > 0],
        lambda x: x * float(x.sum()),
        lambda x: x + torch.tensor([1.0]),
        torch.Tensor.cpu,
    ],
)
def test_the_trace_notices_what_a_graph_cannot_hold(bad):
    try:
        names = operations(types.SimpleNamespace(), lambda _, x: bad(x), torch.zeros(4))
    except RuntimeError:
        return
    assert between_host_and_device(names)


def test_a_resident_tensor_is_taken_once_and_only_for_its_array():
    array, tensor = np.zeros((2, 3), np.float32), torch.zeros(2, 3)
    hold(array, tensor)
    assert take(array.copy()) is None
    assert take(array) is tensor
    assert take(array) is None
    hold(array, tensor)
    references = weakref.ref(tensor)
    del array, tensor
    gc.collect()
    assert references() is None
