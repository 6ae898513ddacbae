from __future__ import annotations

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.pairs.ablation import (
    VARIANTS,
    knock_out,
    trained_files,
    variant,
    write_knock_outs,
)
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.weights import LoadedSuperGlue, load_superglue, save

FULL = SuperGlueConfig(descriptor_dim=16, width=16, layers=3, heads=2, keypoint_encoder=(8,))


@pytest.fixture
def loaded() -> LoadedSuperGlue:
    torch.manual_seed(0)
    return LoadedSuperGlue(SuperGlue(FULL).eval(), "test", "random")


def assignment(network: SuperGlue, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for count in (6, 5):
        points = torch.rand(1, count, 2, generator=generator) * 60
        descriptors = torch.randn(1, count, 16, generator=generator)
        scores = torch.rand(1, count, generator=generator)
        sets += [points, scores, descriptors, torch.tensor([[80.0, 60.0]])]
    with torch.no_grad():
        return network(*sets)


def test_table_4_has_its_five_rows():
    configs = {v.key: v.apply(SuperGlueConfig()) for v in VARIANTS}
    assert configs["full"] == SuperGlueConfig()
    assert configs["smaller"].layers == 3
    assert configs["no-gnn"].graph is False
    assert configs["no-cross-attention"].cross_attention is False
    assert configs["no-position"].keypoint_encoder == ()
    full, siamese = (
        sum(p.numel() for p in SuperGlue(configs[key]).parameters())
        for key in ("full", "no-cross-attention")
    )
    assert full == siamese == 12_023_297  # appendix E: the same number of parameters


@pytest.mark.parametrize("one", VARIANTS, ids=lambda v: v.key)
def test_knocking_a_part_out_changes_the_assignment_and_nothing_else(loaded, one):
    made = knock_out(loaded, one)
    assert made.network.config == one.apply(FULL)
    before, after = assignment(loaded.network), assignment(made.network)
    assert torch.equal(before, after) == (one.key == "full")
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])
    if one.key == "no-position":
        moved = assignment(made.network, seed=0)
        assert torch.equal(moved, after)


def test_files_of_variants_are_found_checked_and_missed(loaded, tmp_path):
    save(loaded.network, tmp_path / "source.safetensors", "test", "random")
    files = write_knock_outs(str(tmp_path / "source.safetensors"), tmp_path / "made")
    assert list(files) == [v.key for v in VARIANTS]
    found, missing = trained_files(tmp_path / "made")
    assert list(found) == [v.key for v in VARIANTS]
    assert missing == []
    (tmp_path / "made" / "no-gnn.safetensors").unlink()
    assert trained_files(tmp_path / "made")[1] == ["no-gnn"]
    reread = load_superglue(found["smaller"]).network
    np.testing.assert_equal(reread.config.layers, 1)
    save(loaded.network, tmp_path / "made" / "no-gnn.safetensors", "test", "random")
    with pytest.raises(ConfigError, match="No Graph Neural Net"):
        trained_files(tmp_path / "made")
    with pytest.raises(ConfigError, match="no-gnn"):
        variant("nothing")
    save(knock_out(loaded, variant("no-gnn")).network, tmp_path / "bare.safetensors", "test", "")
    with pytest.raises(ConfigError, match="nothing to switch off"):
        write_knock_outs(str(tmp_path / "bare.safetensors"), tmp_path / "again")
