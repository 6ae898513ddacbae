"""Compiled engines give what the others give, whatever bucket a set falls into."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F

from superglue_ros.engines.compiled import CompiledSuperGlueEngine, CompiledSuperPointEngine
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.errors import ConfigError
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTH = 16

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def network() -> SuperGlue:
    torch.manual_seed(0)
    return SuperGlue(SuperGlueConfig(WIDTH, WIDTH, layers=1, heads=2, keypoint_encoder=(8,))).eval()


@pytest.fixture(scope="module")
def compiled(network) -> CompiledSuperGlueEngine:
    return CompiledSuperGlueEngine(network, DEVICE, max_keypoints=128)


def prepared(engine: SuperGlueEngine, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = 400 * torch.rand(count, 2, generator=generator)
    descriptors = F.normalize(torch.randn(count, WIDTH, generator=generator), dim=1)
    return engine.prepare(points, torch.rand(count, generator=generator), descriptors, (640, 480))


@needs_compiler
@pytest.mark.parametrize("sizes", [(128, 128), (3, 128), (77, 50), (1, 1), (140, 60)])
def test_padding_changes_nothing(network, compiled, sizes):
    plain = SuperGlueEngine(network, DEVICE)
    reference, query = (prepared(plain, n, n) for n in sizes)
    ((_, expected),) = plain.match_pairs([reference], [query], 20)
    ((_, found),) = compiled.match_pairs([reference], [query], 20)
    assert found.shape == (1, sizes[0] + 1, sizes[1] + 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_results_outlive_the_next_match(network, compiled):
    a, b, c = (prepared(compiled, 30, seed) for seed in range(3))
    first = next(compiled.match_pairs([a], [b], 5))[1]
    kept = first.clone()
    next(compiled.match_pairs([a], [c], 5))
    assert torch.equal(first, kept)


@needs_compiler
def test_maps_of_superpoint_are_the_same():
    torch.manual_seed(0)
    network = SuperPoint(SuperPointConfig((4, 4, 8, 8), 8, 16)).eval()
    images = torch.rand(1, 1, 48, 64)
    expected = SuperPointEngine(network, DEVICE).maps(images)
    found = CompiledSuperPointEngine(network, DEVICE, size=(48, 64)).maps(images)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_without_a_compiler_the_error_says_so(network, monkeypatch):
    def broken(function, **options):
        def run(*arguments):
            raise RuntimeError("No working C++ compiler found\nand so on")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ConfigError, match=r"No working C\+\+ compiler.*set backend to torch"):
        CompiledSuperGlueEngine(network, DEVICE, max_keypoints=128)
