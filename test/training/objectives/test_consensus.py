from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.superpoint import (
    SuperPoint,
    SuperPointConfig,
    keypoint_probability,
)
from superglue_ros.networks.weights import save
from superglue_ros.training.data.corpus import Source, collect
from superglue_ros.training.data.pair_geometry import Homographies
from superglue_ros.training.objectives.consensus import ConsensusObjective
from superglue_ros.training.objectives.consensus_loss import (
    ConsensusConfig,
    centre_of_mass,
    consensus_loss,
    detect,
)
from superglue_ros.training.optimisation import OptimiserConfig
from superglue_ros.training.recipes import ConsensusRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer

TINY = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)
SMALL = ConsensusConfig(points=40, described=20, detections=30)
WIDTH, HEIGHT = 96, 64


def peak(x: float, y: float) -> torch.Tensor:
    """Logits (1, 65, h, w) whose probability is a Gaussian hill at (x, y)."""
    u, v = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
    hill = 0.2 * torch.exp(-((u - x) ** 2 + (v - y) ** 2) / 1.2) + 1e-6
    cells = torch.nn.functional.pixel_unshuffle(hill[None, None], 8)
    rest = 1 - cells.sum(dim=1, keepdim=True).clamp(max=0.99)
    return torch.cat([cells, rest], dim=1).log()


def test_the_centre_of_mass_finds_a_hill_between_pixels():
    probability = keypoint_probability(peak(40.3, 25.6))
    pixels, _, there = detect(probability, 4)
    assert there[0].tolist()[0]
    place = centre_of_mass(probability, pixels)[0, 0]
    np.testing.assert_allclose(place, [40.3, 25.6], atol=0.05)


def test_fillers_at_the_corner_of_the_image_are_no_index_error():
    probability = torch.zeros(1, HEIGHT, WIDTH)
    pixels = torch.tensor([[[0.0, 0.0], [WIDTH - 1.0, HEIGHT - 1.0]]])
    assert torch.isfinite(centre_of_mass(probability, pixels)).all()


def descriptors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 1, 16, HEIGHT // 8, WIDTH // 8, generator=generator)
    return torch.nn.functional.normalize(maps, dim=2)


def shifted(dx: float) -> Homographies:
    h = torch.eye(3)[None].clone()
    h[0, 0, 2] = dx
    return Homographies(h, (WIDTH, HEIGHT))


def test_views_that_agree_have_no_reprojection_error_and_others_their_own():
    agree = torch.stack([peak(40.3, 25.6), peak(44.3, 25.6)])
    apart = torch.stack([peak(40.3, 25.6), peak(45.0, 25.6)])
    _, numbers = consensus_loss(agree, descriptors(), shifted(4.0), SMALL)
    assert float(numbers["reprojection"]) < 0.03
    _, numbers = consensus_loss(apart, descriptors(), shifted(4.0), SMALL)
    assert float(numbers["reprojection"]) == pytest.approx(0.7, abs=0.06)


def test_the_detector_s_gradient_moves_both_views_together():
    logits = torch.stack([peak(40.0, 25.0), peak(44.6, 25.0)]).requires_grad_()
    geometry = shifted(4.0)
    rate = 4.0
    for _ in range(150):
        loss, numbers = consensus_loss(logits, descriptors(), geometry, SMALL)
        logits.grad = None
        loss.backward()
        with torch.no_grad():
            logits -= rate * logits.grad
    assert float(numbers["reprojection"]) < 0.15
    first = keypoint_probability(logits[0].detach())
    place = centre_of_mass(first, detect(first, 1)[0])[0, 0]
    assert 39.9 < place[0] < 40.75  # between both opinions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(14):
        coarse = rng.uniform(0, 255, (30, 40)).astype(np.float32)
        image = cv2.resize(coarse, (800, 600), interpolation=cv2.INTER_CUBIC).clip(0, 255)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    collect([Source("own", folder, "CC0")], folder / "corpus")
    return folder / "corpus"


def recipe_for(corpus: Path, output: Path, **changes) -> ConsensusRecipe:
    recipe = ConsensusRecipe(
        output=str(output), steps=4, corpus=str(corpus), start="random", network=TINY, pairs=2,
        width=WIDTH, height=HEIGHT, loss=SMALL, optimiser=OptimiserConfig(learning_rate=1e-3),
        loop=LoopConfig(precision="float32", report_every=1, device="cpu", validate_every=0),
    )  # fmt: skip
    return replace(recipe, **changes)


def trained(recipe: ConsensusRecipe, steps: int) -> Trainer:
    trainer = Trainer(
        ConsensusObjective(recipe), recipe.steps, recipe.loop, recipe.optimiser, recipe.schedule,
        Path(recipe.output),
    )  # fmt: skip
    trainer.budget.steps = steps
    trainer.run()
    return trainer


def test_a_resumed_run_equals_one_go(corpus, tmp_path):
    whole = trained(recipe_for(corpus, tmp_path / "whole"), 4)
    trained(recipe_for(corpus, tmp_path / "parts"), 2)
    parts = trained(recipe_for(corpus, tmp_path / "parts"), 4)
    assert parts.step == 4
    for one, two in zip(whole.parameters, parts.parameters, strict=True):
        assert torch.equal(one, two)


def test_training_the_detector_leaves_descriptors_alone(corpus, tmp_path):
    recipe = recipe_for(corpus, tmp_path / "head", trained="detector")
    before = ConsensusObjective(recipe).network.state_dict()
    after = trained(recipe, 2).objective.network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith("detector") for key in changed)


def test_frozen_blocks_keep_their_weights(corpus, tmp_path):
    recipe = recipe_for(corpus, tmp_path / "frozen", frozen_blocks=2)
    before = ConsensusObjective(recipe).network.state_dict()
    after = trained(recipe, 2).objective.network.state_dict()
    kept = {key for key in before if torch.equal(before[key], after[key])}
    assert {key for key in before if key.startswith(("backbone.0", "backbone.1"))} <= kept
    assert not any(key in kept for key in ("backbone.2.0.conv.weight", "descriptor.0.conv.weight"))


def test_a_network_may_get_context_and_nothing_else(corpus, tmp_path):
    torch.manual_seed(0)
    wide = replace(TINY, context=0.5)
    for name, config in (("plain", TINY), ("wide", wide)):
        save(SuperPoint(config), tmp_path / f"{name}.safetensors", "kind", "made up")

    def start(name: str, network: SuperPointConfig) -> ConsensusObjective:
        weights = str(tmp_path / f"{name}.safetensors")
        return ConsensusObjective(recipe_for(corpus, tmp_path, start=weights, network=network))

    assert start("plain", wide).network.config == wide
    assert start("wide", wide).network.config == wide
    for name, other in (("plain", replace(wide, head_channels=24)), ("wide", TINY)):
        with pytest.raises(ConfigError, match=rf"{name}\.safetensors is a .* the recipe says"):
            start(name, other)


def test_validation_reports_matches_of_test_photographs(corpus, tmp_path):
    objective = ConsensusObjective(recipe_for(corpus, tmp_path / "x"))
    found = objective.validate(objective.network)
    assert set(found) == {
        "repeatability", "validation P", "median error px", "right under 1 px"
    }  # fmt: skip
    assert found == objective.validate(objective.network)


def test_bad_input_is_named(corpus, tmp_path):
    with pytest.raises(DataError, match="has no rendered views: make them with train views"):
        ConsensusObjective(recipe_for(corpus, tmp_path / "x", views=str(tmp_path)))
    with pytest.raises(ConfigError, match="multiples of 8"):
        recipe_for(corpus, tmp_path / "x", width=100)
    with pytest.raises(ConfigError, match=r"loop\.workers must be 0"):
        recipe_for(corpus, tmp_path / "x", loop=LoopConfig(workers=2))
