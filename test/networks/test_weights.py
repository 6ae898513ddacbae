"""Weights load strictly, whoever wrote them, or fail with a message that says what to do."""

from __future__ import annotations

import json
import os
import resource
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from superglue_ros.errors import WeightsError
from superglue_ros.networks.match_filter import MatchFilter, MatchFilterConfig
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import (
    FORMAT_VERSION,
    PACKAGED,
    digest,
    load_match_filter,
    load_places,
    load_refinement,
    load_superglue,
    load_superpoint,
    save,
    superglue_file,
)

SMALL_POINT = SuperPointConfig((4, 4, 8, 8), 8, 16, batch_norm=True, exact_sampling=True)
SMALL_GLUE = SuperGlueConfig(16, 8, 2, 4, (6, 7))


def same_state(a: torch.nn.Module, b: torch.nn.Module, atol: float = 0.0) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.allclose(x[k], y[k], rtol=0, atol=atol) for k in x)


@pytest.fixture
def glue_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "glue.safetensors"
    save(SuperGlue(SMALL_GLUE), path, "superpoint-x", "made in a test")
    return path


def rewrite(path: Path, change) -> None:
    """Apply ``change(state, metadata)`` to a safetensors file."""
    with safetensors.safe_open(str(path), "pt") as opened:
        metadata = dict(opened.metadata())
    state = safetensors.torch.load_file(path)
    change(state, metadata)
    metadata["sha256"] = digest(state, metadata)
    safetensors.torch.save_file(state, path, metadata)


@pytest.mark.parametrize("context", [0.0, 0.5])
def test_own_files_give_back_the_network_with_kind_and_provenance(tmp_path, context):
    torch.manual_seed(0)
    architecture = replace(SMALL_POINT, context=context)
    point, glue = SuperPoint(architecture), SuperGlue(SMALL_GLUE)
    save(point, tmp_path / "p.safetensors", "superpoint-x", "photographs")
    save(glue, tmp_path / "g.safetensors", "superpoint-x", "pairs")

    loaded_point = load_superpoint(tmp_path / "p.safetensors")
    loaded_glue = load_superglue(str(tmp_path / "g.safetensors"))

    assert same_state(loaded_point.network, point)
    assert loaded_point.network.config == architecture
    assert (loaded_point.kind, loaded_point.provenance) == ("superpoint-x", "photographs")
    assert same_state(loaded_glue.network, glue)
    assert loaded_glue.network.config == SMALL_GLUE
    assert (loaded_glue.descriptor_kind, loaded_glue.provenance) == ("superpoint-x", "pairs")
    assert not loaded_glue.network.training


def test_half_precision_files_are_smaller_and_keep_batch_norm_exact(tmp_path):
    torch.manual_seed(0)
    point = SuperPoint(SMALL_POINT)
    point.backbone[0][0].bn.running_var.fill_(1e6)  # beyond float16
    save(point, tmp_path / "full.safetensors", "x", "")
    save(point, tmp_path / "half.safetensors", "x", "", half=True)

    loaded = load_superpoint(tmp_path / "half.safetensors").network

    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half")]
    assert sizes[1] < 0.8 * sizes[0]
    assert loaded.detector[0].conv.weight.dtype == torch.float32
    assert loaded.backbone[0][0].bn.running_var[0] == 1e6
    assert same_state(loaded, point, atol=1e-3)


def test_saving_replaces_whole_files_and_leaves_no_others(tmp_path, monkeypatch):
    network = SuperGlue(SMALL_GLUE)
    path = tmp_path / "g.safetensors"
    save(network, path, "x", "first")

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(network, path, "x", "second")

    assert [p.name for p in tmp_path.iterdir()] == ["g.safetensors"]
    assert load_superglue(path).provenance == "first"


@pytest.mark.parametrize(("name", "width", "layers"), [("small", 128, 6), ("wide", 192, 9)])
def test_the_package_carries_a_superpoint_and_matchers_for_it(name, width, layers):
    point, glue = load_superpoint(), load_superglue(name)
    assert glue.descriptor_kind == point.kind
    assert glue.network.config.descriptor_dim == point.network.config.descriptor_dim
    assert (glue.network.config.width, glue.network.config.layers) == (width, layers)
    assert point.provenance
    assert glue.provenance


def test_auto_is_the_wide_matcher_on_a_gpu_and_the_small_one_elsewhere():
    for auto in ("", "auto"):
        assert superglue_file(auto, torch.device("cuda")) == superglue_file("wide")
        assert superglue_file(auto, torch.device("cpu")) == superglue_file("small")
        assert superglue_file(auto) == superglue_file("small")
    assert superglue_file("wide", torch.device("cpu")).name == "superglue_wide.safetensors"
    assert superglue_file("folder/wide") == Path("folder/wide")


def test_open_superpoint_sums_two_equal_input_channels(tmp_path):
    torch.manual_seed(1)
    network = SuperPoint(SMALL_POINT)
    state = dict(network.state_dict())
    key = "backbone.0.0.conv.weight"
    state[key] = (state[key] / 2).expand(-1, 2, -1, -1)
    torch.save(state, tmp_path / "open.pth")

    loaded = load_superpoint(tmp_path / "open.pth")

    assert loaded.kind == "superpoint-open"
    assert loaded.network.config == SMALL_POINT
    assert same_state(loaded.network, network, atol=1e-6)

    state[key] = state[key] * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    torch.save(state, tmp_path / "colour.pth")
    with pytest.raises(WeightsError, match=r"colour\.pth.*not a grey image"):
        load_superpoint(tmp_path / "colour.pth")


def test_missing_file_is_named():
    with pytest.raises(WeightsError, match=r"/no/such\.safetensors does not exist"):
        load_superpoint("/no/such.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_truncated_file_says_fetch_again(tmp_path, ending):
    path = tmp_path / f"g.{ending}"
    network = SuperGlue(SMALL_GLUE)
    if ending == "pth":
        torch.save(network.state_dict(), path)
    else:
        save(network, path, "x", "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match=rf"g\.{ending} cannot be read.*fetch it again"):
        load_superglue(path)


def test_code_in_a_pickle_is_refused(tmp_path):
    torch.save({"weight": Path("x")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth cannot be read"):
        load_superpoint(tmp_path / "evil.pth")


def test_unknown_ending_content_and_layout(tmp_path):
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"unknown ending '\.onnx'"):
        load_superpoint(tmp_path / "w.onnx")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list, not parameters by name"):
        load_superpoint(tmp_path / "list.pth")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"unknown layout with keys a\.weight"):
        load_superglue(tmp_path / "other.pth")


def test_the_other_network_is_recognised(tmp_path, glue_file):
    with pytest.raises(WeightsError, match=r"holds a SuperGlue.*matcher\.weights"):
        load_superpoint(glue_file)
    torch.save(SuperPoint(SMALL_POINT).state_dict(), tmp_path / "p.pth")
    with pytest.raises(WeightsError, match=r"holds a SuperPoint.*front_end\.weights"):
        load_superglue(tmp_path / "p.pth")


def test_missing_extra_and_misshapen_keys_are_named(glue_file):
    original = glue_file.read_bytes()
    rewrite(glue_file, lambda state, _: state.pop("final.weight"))
    with pytest.raises(WeightsError, match=r"glue\.safetensors lacks final\.weight"):
        load_superglue(glue_file)

    glue_file.write_bytes(original)
    rewrite(glue_file, lambda state, _: state.update(surplus=torch.zeros(1)))
    with pytest.raises(WeightsError, match="unknown keys surplus"):
        load_superglue(glue_file)

    glue_file.write_bytes(original)
    rewrite(glue_file, lambda state, _: state.update({"final.weight": torch.zeros(8, 9)}))
    with pytest.raises(WeightsError, match=r"key final\.weight has shape \(8, 9\) where \(8, 8\)"):
        load_superglue(glue_file)

    glue_file.write_bytes(original)
    rewrite(glue_file, lambda state, _: state["final.bias"].fill_(float("nan")))
    with pytest.raises(WeightsError, match=r"key final\.bias .* NaN"):
        load_superglue(glue_file)


def test_other_versions_and_architectures_are_refused(glue_file):
    original = glue_file.read_bytes()
    rewrite(glue_file, lambda _, metadata: metadata.update(superglue_ros_format="99"))
    with pytest.raises(WeightsError, match="format version 99, this package reads 2"):
        load_superglue(glue_file)

    glue_file.write_bytes(original)
    rewrite(glue_file, lambda _, m: m.update(architecture=json.dumps({"depth": 3})))
    with pytest.raises(WeightsError, match=r"architecture.*depth"):
        load_superglue(glue_file)

    glue_file.write_bytes(original)
    rewrite(glue_file, lambda _, m: m.pop("descriptor_kind"))
    with pytest.raises(WeightsError, match="lacks descriptor_kind"):
        load_superglue(glue_file)


def test_incomplete_original_layouts_name_the_key_of_the_file(tmp_path):
    torch.save({"conv1a.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "p.pth")
    with pytest.raises(WeightsError, match=r"p\.pth: missing key conv2a\.weight"):
        load_superpoint(tmp_path / "p.pth")
    torch.save({"kenc.encoder.0.weight": torch.zeros(4, 3, 1)}, tmp_path / "g.pth")
    with pytest.raises(WeightsError, match=r"g\.pth: missing key final_proj\.weight"):
        load_superglue(tmp_path / "g.pth")


def test_no_flipped_bit_loads_silently(glue_file, tmp_path):
    """596 of 800 such files loaded as if nothing had happened."""
    good, rng = glue_file.read_bytes(), np.random.default_rng(0)
    damaged = tmp_path / "damaged.safetensors"
    for place in rng.choice(8 * len(good), 400, replace=False):
        data = bytearray(good)
        data[place // 8] ^= 1 << (place % 8)
        damaged.write_bytes(bytes(data))
        with pytest.raises(WeightsError, match=r"damaged\.safetensors"):
            load_superglue(damaged)


def test_every_packaged_file_has_its_checksum():
    for file in PACKAGED.glob("*.safetensors"):
        with safetensors.safe_open(str(file), "pt") as opened:
            assert opened.metadata()["superglue_ros_format"] == FORMAT_VERSION, file
    assert load_superpoint().network
    assert load_superglue().network


def test_files_without_a_checksum_say_so(glue_file, caplog):
    rewrite(glue_file, lambda _, metadata: metadata.update(superglue_ros_format="1"))
    with safetensors.safe_open(str(glue_file), "pt") as opened:
        metadata = {k: v for k, v in opened.metadata().items() if k != "sha256"}
    safetensors.torch.save_file(safetensors.torch.load_file(glue_file), glue_file, metadata)
    assert load_superglue(glue_file).network
    assert "no checksum" in caplog.text


def zeroed(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value)


def noise(value: torch.Tensor) -> torch.Tensor:
    """Random bits, but finite: no value of its own tells that it is damage."""
    rng = np.random.default_rng(value.numel())
    bits = torch.from_numpy(rng.integers(0, 2**32, tuple(value.shape) or (1,), np.uint32))
    return torch.nan_to_num(bits.view(torch.float32).view(value.shape), 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "said"), [(zeroed, "do not depend on the test input"), (noise, "NaN or infinite")]
)
@pytest.mark.parametrize("without", ["foreign", "version 1"])
def test_dead_networks_without_a_checksum_are_refused(tmp_path, change, said, without):
    torch.manual_seed(0)
    for network, load in (
        (SuperPoint(SMALL_POINT), load_superpoint),
        (SuperGlue(SMALL_GLUE), load_superglue),
        (PatchRegistration(), load_refinement),
        (MatchFilter(MatchFilterConfig(8, 2)), partial(load_match_filter, "pointcn")),
        (PlaceAggregation(PlacesConfig(8, 4, 1, 2)), load_places),
    ):
        file = tmp_path / f"{type(network).__name__}.safetensors"
        state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
        if without == "foreign":
            if not isinstance(network, SuperPoint):
                continue  # our own names are those of the open SuperPoint
            metadata = None
        else:
            save(network, file, "x", "")
            with safetensors.safe_open(str(file), "pt") as opened:
                metadata = {k: v for k, v in opened.metadata().items() if k != "sha256"}
            metadata["superglue_ros_format"] = "1"
        safetensors.torch.save_file(state, file, metadata)
        assert load(file).network  # untrained, but it answers
        dead = {key: change(value) for key, value in state.items()}
        safetensors.torch.save_file(dead, file, metadata)
        if isinstance(network, PlaceAggregation):  # of unit length: what overflows becomes zero
            said = "do not depend on the test input"
        with pytest.raises(WeightsError, match=rf"{file.name}: .*{said}.*fetch the file again"):
            load(file)


def test_one_flipped_bit_that_ends_all_matching_is_noticed(tmp_path):
    """The dustbin's exponent: every keypoint would stay unmatched."""
    file = tmp_path / "glue.safetensors"
    save(load_superglue().network, file, "x", "")
    with safetensors.safe_open(str(file), "pt") as opened:
        metadata = {k: v for k, v in opened.metadata().items() if k != "sha256"}
    metadata["superglue_ros_format"] = "1"
    state = safetensors.torch.load_file(file)
    safetensors.torch.save_file(state, file, metadata)
    assert load_superglue(file).network
    bits = state["dustbin"].view(torch.int32) ^ (1 << 29)
    state["dustbin"] = bits.view(torch.float32)
    assert state["dustbin"] > 1e9
    safetensors.torch.save_file(state, file, metadata)
    with pytest.raises(WeightsError, match="assignments do not depend on the test input"):
        load_superglue(file)


@pytest.mark.parametrize(
    "change",
    [{"width": 20000}, {"layers": 10**9}, {"keypoint_encoder": [1] * 10**5}, {"heads": -1},
     {"width": "8"}, {"descriptor_dim": 4096, "width": 4096, "layers": 64}],
)  # fmt: skip
def test_absurd_architectures_are_refused_before_they_take_memory(glue_file, change):
    def absurd(_, metadata):
        values = json.loads(metadata["architecture"])
        metadata["architecture"] = json.dumps({**values, **change})

    rewrite(glue_file, absurd)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="no architecture"):
        load_superglue(glue_file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


def test_a_fifo_a_giant_and_a_bomb_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    with open(tmp_path / "giant.safetensors", "wb") as file:
        file.truncate(4 << 30)
    with (
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("data", "w", force_zip64=True) as entry,
    ):
        for _ in range(1100):
            entry.write(bytes(1 << 20))
    for name, said in (
        ("fifo.pth", "no regular file"),
        ("giant.safetensors", "more than the limit"),
        ("bomb.pth", "unpacks to"),
    ):
        with pytest.raises(WeightsError, match=said):
            load_superglue(tmp_path / name)
