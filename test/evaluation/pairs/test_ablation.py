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


def assignment(network: SuperGlue, shift: float = 0.0) -> torch.Tensor:
    """Of the same random features each time; ``shift`` [px] moves the first keypoint of each."""
    generator = torch.Generator().manual_seed(0)
    sets = []
    for count in (6, 5):
        points = torch.rand(1, count, 2, generator=generator) * 60
        points[:, 0] += shift
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


@pytest.mark.parametrize("one", VARIANTS, ids=lambda v: v.key)
def test_only_without_positional_encoding_the_position_does_not_matter(loaded, one):
    network = knock_out(loaded, one).network
    same = torch.equal(assignment(network), assignment(network, shift=7.0))
    assert same == (one.key == "no-position")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("no-gnn", "network.graph: false"),
        ("no-cross-attention", "network.cross_attention: false"),
        ("no-position", "network.keypoint_encoder: []"),
        ("smaller", "network.layers: a third of the full network's"),
        ("full", "the network settings of the recipe as they are"),
    ],
)
def test_every_variant_says_how_to_train_it(key, hint):
    assert variant(key).training_hint() == hint


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
