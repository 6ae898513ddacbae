"""Training of the refinement network: labels that are exact, and a loss that falls."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import yaml

from superglue_ros.cli import main
from superglue_ros.errors import ConfigError
from superglue_ros.networks.refinement import PatchRegistrationConfig, Registration
from superglue_ros.networks.weights import load_refinement
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.synthetic.photometric import PhotometricRecipe
from superglue_ros.training.data.views import homography_views
from superglue_ros.training.objectives.refinement import draw_patches
from superglue_ros.training.recipes import NoiseConfig

from ..conftest import textured

SIDE = 15


def views(seed: int = 0):
    recipe = HomographyRecipe(width=240, height=176, perspective=0.02, rotation_deg=10.0)
    plain = PhotometricRecipe(probability=0.0)
    rng = np.random.default_rng(seed)
    return homography_views(textured(seed, 640, 500), rng, 2, recipe, plain)


def test_the_query_moved_by_the_offset_shows_the_reference():
    """The label is where the content of the first patch's centre is in the second."""
    noise = NoiseConfig(scales_px=(1.0,), shares=(1.0,), wrong=0.0, draws=1)
    first, second, offset, right = draw_patches(views(), np.random.default_rng(1), SIDE, noise, 80)
    assert len(first) > 20
    assert right.all()
    centre = (SIDE - 1) / 2
    apart, unmoved = [], []
    for a, b, move in zip(first.numpy(), second.numpy(), offset.numpy(), strict=True):
        true = cv2.getRectSubPix(b, (5, 5), (float(centre + move[0]), float(centre + move[1])))
        own = cv2.getRectSubPix(a, (5, 5), (centre, centre))
        apart.append(np.abs(true - own).mean())
        unmoved.append(np.abs(cv2.getRectSubPix(b, (5, 5), (centre, centre)) - own).mean())
    assert np.median(apart) < 0.4 * np.median(unmoved)


def test_wrong_matches_are_marked_and_noise_has_its_size():
    noise = NoiseConfig(scales_px=(0.5,), shares=(1.0,), wrong=0.3, draws=4)
    _, _, offset, right = draw_patches(views(), np.random.default_rng(1), SIDE, noise, 120)
    assert 0.55 < right.float().mean() < 0.85
    assert float(offset[right].std()) == pytest.approx(0.5, rel=0.25)
    assert float(offset[~right].std()) > 1.2


def test_the_likelihood_is_that_of_a_gaussian():
    factor = torch.tensor([[[0.5, 0.0], [0.2, 0.8]]])
    found = Registration(torch.tensor([[0.1, -0.3]]), factor)
    truth = torch.tensor([[0.7, 0.4]])
    density = torch.distributions.MultivariateNormal(found.offset, found.covariance)
    expected = -density.log_prob(truth) - np.log(2 * np.pi)
    assert torch.allclose(found.negative_log_likelihood(truth), expected, atol=1e-5)


def test_noise_and_patches_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"shares must add up to 1, not 0\.5"):
        NoiseConfig(scales_px=(1.0,), shares=(0.5,))
    with pytest.raises(ConfigError, match="as many positive scales_px as shares"):
        NoiseConfig(scales_px=(1.0, 2.0), shares=(1.0,))
    with pytest.raises(ConfigError, match="odd side of at least 5 pixels, not 8"):
        PatchRegistrationConfig(side=8)


def test_from_a_recipe_to_weights_that_register(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        cv2.imwrite(str(tmp_path / "photos" / f"{seed}.png"), textured(seed, 640, 500))
    assert main(["train", "corpus", "--folder", "photos", "--output", "corpus"]) == 0
    recipe = {
        "output": "run",
        "steps": 30,
        "pairs": 2,
        "network": {"filters": 24, "hidden": [32]},
        "views": {"corpus": "corpus", "width": 240, "height": 176, "keypoints": 100},
        "noise": {"draws": 2},
        "optimiser": {"name": "adamw", "learning_rate": 0.003},
        "loop": {"precision": "float32", "report_every": 10},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "refinement", "recipe.yaml"]) == 0
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    losses = [float(row.split(",")[1]) for row in rows[1:]]
    assert losses[-1] < losses[0] - 0.05
    assert (
        main(["train", "export", "recipe.yaml", "out.safetensors", "--provenance", "a test"]) == 0
    )
    loaded = load_refinement("out.safetensors")
    assert loaded.provenance == "a test"
    assert loaded.network.config.filters == 24
