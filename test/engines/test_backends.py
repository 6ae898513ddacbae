"""The runtime is chosen by setting, and never one that gives something else."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.engines import backends
from superglue_ros.engines.backends import superglue_engine, superpoint_engine
from superglue_ros.engines.export import export_superglue, export_superpoint
from superglue_ros.engines.onnx_runtime import OnnxSuperGlueEngine, OnnxSuperPointEngine
from superglue_ros.engines.precision import detection_outcome, difference
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import ConfigError, WeightsError
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
    initialise_as_optimal_matching,
)
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import LoadedSuperGlue, LoadedSuperPoint

CPU = torch.device("cpu")


def glue_of(scale: float) -> LoadedSuperGlue:
    network = SuperGlue(SuperGlueConfig(16, 16, keypoint_encoder=(), graph=False)).eval()
    initialise_as_optimal_matching(network, scale)
    return LoadedSuperGlue(network, "kind-x", "")


@pytest.fixture(scope="module")
def point() -> LoadedSuperPoint:
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 4, 8, 8), 8, 16)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # no near ties between runtimes
            torch.nn.init.normal_(module.weight, std=2 * module.weight[0].numel() ** -0.5)
    return LoadedSuperPoint(network, "kind-x", "")


@pytest.fixture(scope="module")
def folder(point, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    export_superpoint(point.network, point.kind, folder / "superpoint.onnx")
    export_superglue(glue_of(20.0).network, "kind-x", folder / "superglue.onnx", 10)
    return folder


@pytest.fixture
def config(folder) -> Config:
    matcher = replace(MatcherConfig(), sinkhorn_iterations=10)
    return Config(backend="onnx", onnx_folder=str(folder), matcher=matcher)


def test_torch_needs_no_files():
    assert isinstance(superglue_engine(glue_of(20.0), Config(), CPU), SuperGlueEngine)


def test_onnx_of_the_same_weights(config, point):
    assert isinstance(superglue_engine(glue_of(20.0), config, CPU), OnnxSuperGlueEngine)
    assert isinstance(superpoint_engine(point, config, CPU), OnnxSuperPointEngine)


def test_onnx_is_compared_in_its_own_precision(config, point, monkeypatch):
    for name in ("superpoint_arithmetic", "superglue_arithmetic"):
        monkeypatch.setattr(backends, name, lambda *_: (torch.bfloat16,))
    expected = detection_outcome(SuperPointEngine(point.network, CPU))
    rounded = detection_outcome(SuperPointEngine(point.network, CPU, torch.bfloat16))
    assert difference(expected, rounded)
    assert isinstance(superpoint_engine(point, config, CPU), OnnxSuperPointEngine)
    assert isinstance(superglue_engine(glue_of(20.0), config, CPU), OnnxSuperGlueEngine)


def test_onnx_of_other_weights_is_refused(config):
    with pytest.raises(WeightsError, match=r"superglue\.onnx is not of these weights.*export it"):
        superglue_engine(glue_of(12.0), config, CPU)
    other = replace(glue_of(20.0), descriptor_kind="kind-y")
    with pytest.raises(WeightsError, match=r"is for descriptors 'kind-x'.*'kind-y'"):
        superglue_engine(other, config, CPU)


def test_auto_takes_the_faster_and_does_without_files(config, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    auto = replace(config, backend="auto")
    engine = superglue_engine(glue_of(20.0), auto, CPU)
    assert isinstance(engine, (SuperGlueEngine, OnnxSuperGlueEngine))
    assert "torch" in caplog.text
    nothing = replace(auto, onnx_folder=str(tmp_path))
    assert isinstance(superglue_engine(glue_of(20.0), nothing, CPU), SuperGlueEngine)
    assert "does not exist" in caplog.text
    assert isinstance(superglue_engine(glue_of(12.0), auto, CPU), SuperGlueEngine)


def test_options_of_the_matcher_are_switched_on_or_refused():
    loaded = glue_of(20.0)
    graph = SuperGlue(SuperGlueConfig(16, 16, 1, 2, (8,))).eval()
    loaded = replace(loaded, network=graph)

    def engine(backend: str, **options):
        config = replace(Config(), backend=backend, matcher=MatcherConfig(**options))
        return superglue_engine(loaded, config, CPU)

    for backend in ("torch", "auto"):
        made = engine(backend, top_k=8, hierarchy=4)
        assert (made.config.top_k, made.config.hierarchy, made.config.prune) == (8, 4, 0)
    with pytest.raises(ConfigError, match=r"the exported graph does not have matcher\.prune"):
        engine("onnx", prune=0.1)
    with pytest.raises(ConfigError, match=r"backend compiled does not have the network's top_k"):
        engine("compiled", top_k=8)
