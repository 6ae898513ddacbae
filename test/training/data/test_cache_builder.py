"""A cache is the same whoever makes it, and goes on where it was interrupted."""

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from superglue_ros.errors import DataError
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.training.data.cache import read_cache
from superglue_ros.training.data.cache_builder import build_cache
from superglue_ros.training.data.corpus import Source, collect
from superglue_ros.training.recipes import CacheRecipe

from ..conftest import textured


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> CacheRecipe:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), textured(seed, 640, 520))
    # All photographs train, whatever their hash.
    corpus = folder / "corpus"
    collect([Source("ours", folder, "CC0", "training-photographs")], corpus)
    return CacheRecipe(
        corpus=str(corpus),
        output=str(folder / "cache"),
        sets=3,
        views=2,
        sets_per_shard=1,
        width=160,
        height=120,
        keypoints=48,
        precision="float32",
        device="cpu",
        homography=HomographyRecipe(rotation_deg=5, perspective=0.05, translation=0.05),
    )


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_processes_make_the_same_files_as_one(recipe, tmp_path):
    alone = files(str(build_cache(replace(recipe, output=str(tmp_path / "alone")))))
    together = replace(recipe, output=str(tmp_path / "together"), processes=2)
    assert list(alone) == [f"shard_{i:05d}.safetensors" for i in range(3)]
    made = read_cache(build_cache(together))[0]
    for shard, other in zip(read_cache(tmp_path / "alone")[0], made, strict=True):
        for key, values in vars(shard).items():
            # Another number of threads may round otherwise.
            torch.testing.assert_close(values, getattr(other, key), atol=2e-3, rtol=0)
    assert sum(len(shard.pairs) for shard in made) > 0


def test_a_build_goes_on_and_adds_shards(recipe, tmp_path):
    output = str(tmp_path / "cache")
    build_cache(replace(recipe, output=output, sets=1))
    first = files(output)
    Path(output, "shard_00000.safetensors").touch()
    build_cache(replace(recipe, output=output, sets=2, processes=4))
    grown = files(output)
    assert list(grown) == ["shard_00000.safetensors", "shard_00001.safetensors"]
    assert grown["shard_00000.safetensors"] == first["shard_00000.safetensors"]
    with pytest.raises(DataError, match=r"holds a cache of another recipe"):
        build_cache(replace(recipe, output=output, keypoints=32))


def test_any_front_end_can_be_cached(recipe, tmp_path):
    output = str(tmp_path / "sift")
    made = replace(recipe, front_end="sift", output=output, sets=1, width=320, height=240)
    shards, kind = read_cache(build_cache(made))
    assert kind == "sift-root"
    (shard,) = shards
    assert shard.descriptors.shape == (2, 48, 128)
    for keypoints, descriptors in zip(shard.counts, shard.descriptors, strict=True):
        lengths = descriptors.float().norm(dim=1)
        torch.testing.assert_close(lengths[:keypoints], torch.ones(keypoints), atol=2e-3, rtol=0)
        assert not lengths[keypoints:].any()
    # SIFT finds the same points again: most labelled matches look alike.
    matched = shard.matches0[0] >= 0
    assert matched.sum() >= 10
    first, second = shard.descriptors.float()[shard.pairs[0].long()]
    alike = (first[matched] * second[shard.matches0[0][matched].long()]).sum(1)
    assert alike.median() > 0.8
