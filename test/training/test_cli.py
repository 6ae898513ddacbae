"""The commands from a folder of images to weights that the node loads."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from superglue_ros.cli import main
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import load_superglue, load_superpoint, save
from superglue_ros.training.data.cache import read_cache
from superglue_ros.training.data.corpus import read_manifest

from .conftest import textured

TINY = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        cv2.imwrite(str(tmp_path / "photos" / f"{seed}.png"), textured(seed, 640, 500))
    torch.manual_seed(0)
    save(SuperPoint(TINY).eval(), tmp_path / "sp.safetensors", "tiny-kind", "test")
    return tmp_path


def recipe(path: Path, **values) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


def train(*words: str) -> None:
    assert main(["train", *words]) == 0


def test_from_images_to_weights(workplace):
    train("corpus", "--folder", "photos", "--licence", "CC0", "--output", "corpus")
    assert {image.licence for image in read_manifest("corpus")} == {"CC0"}

    small = {"width": 128, "height": 96, "corpus": "corpus", "detector": "sp.safetensors"}
    for source, sets in (("homography", 4), ("rooms", 2)):
        cache = recipe(
            workplace / "cache.yaml", source=source, output=source, sets=sets, views=2,
            sets_per_shard=2, keypoints=120, **small,
        )  # fmt: skip
        train("cache", cache)
        first, _ = read_cache(source)
        (Path(source) / "shard_00000.safetensors").unlink()  # an interrupted build goes on
        train("cache", cache)
        again, _ = read_cache(source)
        for a, b in zip(first, again, strict=True):
            assert all(torch.equal(v, getattr(b, k)) for k, v in vars(a).items())
    shards, kind = read_cache("homography")
    assert (len(shards), kind) == (2, "tiny-kind")
    assert all((shard.counts == 120).all() for shard in shards)  # filled up at random

    run = recipe(
        workplace / "sg.yaml",
        output="run",
        network={"descriptor_dim": 16, "width": 16, "layers": 1, "keypoint_encoder": [8]},
        stages=[
            {
                "name": "only",
                "steps": 3,
                "caches": {"homography": 0.5, "rooms": 0.5},
                "sampling": {"keypoints": 32, "pairs": 2},
            }
        ],
        sinkhorn_iterations=5,
        validation="homography",
        optimiser={"ema": 0.5},
    )
    train("superglue", run)
    train("export", run, "sg.safetensors", "--provenance", "a test")
    loaded = load_superglue("sg.safetensors")
    assert (loaded.descriptor_kind, loaded.provenance) == ("tiny-kind", "a test")

    both = recipe(
        workplace / "both.yaml",
        output="both", superpoint="sp.safetensors", superglue="sg.safetensors", steps=2, pairs=1,
        views={"source": "homography", "views": 2, "keypoints": 64, "corpus": "corpus",
               "width": 128, "height": 96},
    )  # fmt: skip
    train("end-to-end", both)
    (workplace / "out").mkdir()
    train("export", both, "out/superpoint.safetensors", "--kind", "tuned")
    before, after = load_superpoint("sp.safetensors"), load_superpoint("out/superpoint.safetensors")
    assert after.kind == load_superglue("out/superglue.safetensors").descriptor_kind == "tuned"
    image = torch.from_numpy(textured(9, 96, 64))[None, None].float() / 255
    with torch.no_grad():
        (logits0, maps0), (logits1, maps1) = before.network(image), after.network(image)
    torch.testing.assert_close(logits0, logits1, atol=0.02, rtol=0.02)  # float16 on the disk
    assert (maps0 - maps1).abs().max() > 1e-5


def test_superpoint_from_shapes_to_weights(workplace):
    labels = recipe(
        workplace / "labels.yaml", teacher="shapes", output="shapes.safetensors", crops=4,
        points=30, width=128, height=96,
    )  # fmt: skip
    train("labels", labels)
    run = recipe(
        workplace / "sp.yaml", output="run", labels="shapes.safetensors", steps=2, pairs=1,
        width=64, height=64,
        network={"channels": [8, 8, 8, 8], "head_channels": 16, "descriptor_dim": 16},
    )  # fmt: skip
    train("superpoint", run)
    train("export", run, "made.safetensors", "--kind", "from-shapes")
    assert load_superpoint("made.safetensors").kind == "from-shapes"


@pytest.mark.parametrize(
    "words, message",
    [
        (["corpus", "--folder", "nowhere"], "nowhere is not a folder"),
        (["corpus", "--packages", "none.tsv"], "none.tsv cannot be read"),
        (["superglue", "none.yaml"], "cannot read settings none.yaml"),
        (["export", "none.yaml", "x.safetensors"], "cannot read settings none.yaml"),
    ],
)
def test_bad_input_is_named(workplace, capsys, words, message):
    assert main(["train", *words]) == 1
    assert message in capsys.readouterr().err


def test_an_empty_corpus_is_refused(workplace, capsys):
    (workplace / "empty").mkdir()
    assert main(["train", "corpus", "--folder", "empty"]) == 1
    assert "no usable image found" in capsys.readouterr().err


def test_package_lists_are_checked(workplace, capsys):
    (workplace / "list.tsv").write_text("# name kind\nsome-package pictures\n")
    assert main(["train", "corpus", "--packages", "list.tsv"]) == 1
    assert "line 2: give a package's name and one of photographs, " in capsys.readouterr().err


def test_a_cache_of_another_recipe_is_not_overwritten(workplace, capsys):
    train("corpus", "--folder", "photos", "--output", "corpus")
    values = {
        "source": "homography", "corpus": "corpus", "detector": "sp.safetensors", "output": "c",
        "sets": 1, "views": 2, "keypoints": 30, "width": 64, "height": 64,
    }  # fmt: skip
    train("cache", recipe(workplace / "a.yaml", **values))
    assert main(["train", "cache", recipe(workplace / "b.yaml", **{**values, "views": 3})]) == 1
    assert "holds a cache of another recipe" in capsys.readouterr().err
    assert np.size(read_cache("c")[0]) == 1
