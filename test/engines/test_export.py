"""Exported graphs give in ONNX Runtime what the networks give in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from superglue_ros.engines.export import export_superglue, export_superpoint
from superglue_ros.engines.onnx_runtime import OnnxSuperGlueEngine, OnnxSuperPointEngine
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.errors import ConfigError, WeightsError
from superglue_ros.networks.sinkhorn import ABSORB_EVERY
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig, keypoint_probability

CPU = torch.device("cpu")
SIZE = (640, 480)
ITERATIONS = 12


@pytest.fixture(scope="module")
def point(tmp_path_factory) -> tuple[SuperPoint, Path]:
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 6, 8, 8), 12, 16)).eval()
    path = tmp_path_factory.mktemp("onnx") / "superpoint.onnx"
    export_superpoint(network, "kind-x", path)
    return network, path


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> tuple[SuperGlue, Path]:
    torch.manual_seed(0)
    network = SuperGlue(SuperGlueConfig(16, 16, 1, 2, (8,))).eval()
    network.final.weight.data.copy_(5 * torch.eye(16))
    path = tmp_path_factory.mktemp("onnx") / "superglue.onnx"
    export_superglue(network, "kind-x", path, ITERATIONS)
    return network, path


def test_the_iterations_are_a_loop_of_the_graph(glue):
    nodes = pytest.importorskip("onnx").load(glue[1]).graph.node
    loops = [node for node in nodes if node.op_type == "Loop"]
    assert len(loops) == 1
    body = next(one.g for one in loops[0].attribute if one.name == "body")
    inside = sum(node.op_type == "MatMul" for node in body.node)
    assert inside == 2 * ABSORB_EVERY


@pytest.mark.parametrize("size", [(1, 48, 64), (3, 16, 24)])
@pytest.mark.parametrize("context", [0.0, 0.5])
def test_superpoint_maps_of_any_size(point, size, context, tmp_path):
    network, path = point
    if context:
        network = SuperPoint(replace(network.config, context=context)).eval()
        path = tmp_path / "context.onnx"
        export_superpoint(network, "kind-x", path)
    images = torch.rand(size[0], 1, *size[1:])
    with torch.inference_mode():
        logits, descriptors = network(images)
    engine = OnnxSuperPointEngine(path)
    maps = engine.maps(images)
    assert engine.descriptor_kind == "kind-x"
    assert (maps[0] - keypoint_probability(logits)).abs().max() < 1e-5
    assert (maps[1] - descriptors).abs().max() < 1e-5


def random_set(count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(count, 2, generator=generator) * 400,
        torch.rand(count, generator=generator),
        torch.nn.functional.normalize(torch.randn(count, 16, generator=generator), dim=1),
        SIZE,
    )


def test_a_window_equals_the_torch_engine(glue):
    network, path = glue
    ours, theirs = SuperGlueEngine(network, CPU), OnnxSuperGlueEngine(path)
    sets = [random_set(count, seed) for seed, count in enumerate((19, 33, 7))]
    expected, found = (
        dict(
            e.match_pairs([e.prepare(*s) for s in sets[:2]], [e.prepare(*sets[2])] * 2, ITERATIONS)
        )
        for e in (ours, theirs)
    )
    assert found.keys() == expected.keys() == {0, 1}
    for k in found:
        assert (found[k] - expected[k]).abs().max() < 1e-4


def test_padding_masks_of_the_graph(glue):
    network, path = glue
    engine = OnnxSuperGlueEngine(path)
    a, b = engine.prepare(*random_set(12, 1)), engine.prepare(*random_set(9, 2))
    ((_, alone),) = engine.match_pairs(
        [engine.prepare(*(x[:8] for x in random_set(12, 1)[:3]), SIZE)], [b], ITERATIONS
    )
    a.arrays["mask"][0, 8:] = False
    ((_, padded),) = engine.match_pairs([a], [b], ITERATIONS)
    assert (padded[:, :8] - alone[:, :8]).abs().max() < 1e-4
    assert (padded[:, -1] - alone[:, -1]).abs().max() < 1e-4
    assert (padded[:, 8:-1] == -torch.inf).all()


def test_errors_name_the_file_and_the_fix(glue, point, tmp_path):
    with pytest.raises(WeightsError, match=r"no\.onnx does not exist.*superglue-ros export"):
        OnnxSuperPointEngine(tmp_path / "no.onnx")
    with pytest.raises(WeightsError, match=r"not those of `superglue-ros export`"):
        OnnxSuperGlueEngine(point[1])
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"bad\.onnx cannot be read as ONNX"):
        OnnxSuperPointEngine(tmp_path / "bad.onnx")
    engine = OnnxSuperGlueEngine(glue[1])
    prepared = engine.prepare(*random_set(5, 1))
    with pytest.raises(ConfigError, match=r"makes 12 Sinkhorn iterations.*is 100"):
        list(engine.match_pairs([prepared], [prepared], 100))
