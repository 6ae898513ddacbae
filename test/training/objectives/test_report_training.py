"""The technical report's training: scales, hard pairs, moved keypoints, float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError
from superglue_ros.networks.superglue import SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import save
from superglue_ros.training.data.batches import SamplingConfig
from superglue_ros.training.objectives.superglue import SuperGlueObjective
from superglue_ros.training.optimisation import OptimiserConfig
from superglue_ros.training.recipes import AdversarialConfig, Stage, SuperGlueRecipe, ViewRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer

NETWORK = SuperGlueConfig(descriptor_dim=16, width=16, layers=1, heads=2, keypoint_encoder=(8,))
LOOP = LoopConfig(precision="float32", report_every=1, validate_every=0, device="cpu")
rng = np.random.default_rng


def recipe_for(cache: Path, output: Path, **changes) -> SuperGlueRecipe:
    sampling = changes.pop("sampling", SamplingConfig(keypoints=24, pairs=3))
    stage = Stage(name="only", steps=6, caches={str(cache): 1.0}, sampling=sampling)
    values = {"network": NETWORK, "start": "random", "sinkhorn_iterations": 8, "loop": LOOP}
    return SuperGlueRecipe(output=str(output), stages=(stage,), **{**values, **changes})


def trainer_for(recipe: SuperGlueRecipe) -> Trainer:
    objective = SuperGlueObjective(recipe)
    return Trainer(
        objective, 6, recipe.loop, recipe.optimiser, recipe.schedule, Path(recipe.output)
    )


def losses(trainer: Trainer, steps: int) -> list[float]:
    """Of the next steps, which are made."""
    drawn = trainer._batches()
    return [float(trainer._advance(*next(drawn))["loss"]) for _ in range(steps)]


@pytest.mark.parametrize("resident", [False, True])
def test_the_pairs_of_the_largest_loss_are_trained_on(cache, tmp_path, resident):
    sampling = SamplingConfig(keypoints=24, pairs=3, drop=0.0, hard_percentile=0.7)
    assert sampling.drawn == 10
    assert SamplingConfig(pairs=12, hard_percentile=0.8).drawn == 60
    assert SamplingConfig(pairs=12).drawn == 12
    objective = SuperGlueObjective(
        recipe_for(cache, tmp_path, sampling=sampling, resident=resident)
    )
    batch = objective.draw(0, rng(0))
    assert len(batch.matches0) == 10
    before = {k: v.clone() for k, v in objective.network.named_buffers()}
    chosen = objective._hardest(batch)
    assert all(torch.equal(v, before[k]) for k, v in objective.network.named_buffers())
    assert objective.network.training
    objective.network.eval()
    with torch.no_grad():
        each = [float(objective._likelihood(batch.select(torch.tensor([i])))[0]) for i in range(10)]
    expected = sorted(np.argsort(each)[-3:].tolist())
    found = [
        i
        for i in range(10)
        if any(torch.equal(batch.descriptors0[i], one) for one in chosen.descriptors0)
    ]
    # The same pair of a cache may be drawn twice.
    assert set(expected) <= set(found)
    assert len(chosen.matches0) == 3


def test_keypoints_move_against_the_matcher(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path)
    moving = replace(recipe, adversarial=AdversarialConfig(epsilon=0.02, weight=0.5))
    plain, against = SuperGlueObjective(recipe), SuperGlueObjective(moving)
    batch = plain.draw(0, rng(0))
    points = [x.clone().requires_grad_() for x in (batch.keypoints0, batch.keypoints1)]
    given = replace(batch, keypoints0=points[0], keypoints1=points[1])
    loss, _ = plain._likelihood(given)
    gradients = torch.autograd.grad(loss, points)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    moved = [p.detach() + 0.02 * 100 * g.sign() for p, g in zip(points, gradients, strict=True)]
    expected, _ = plain._likelihood(replace(batch, keypoints0=moved[0], keypoints1=moved[1]))
    assert expected > loss
    total, numbers = against.loss(batch)
    assert float(numbers["moved"]) == pytest.approx(float(expected.detach()), rel=1e-4)
    both = float(loss.detach()) + 0.5 * float(expected.detach())
    assert float(total.detach()) == pytest.approx(both, rel=1e-4)


def test_moved_keypoints_train_with_checkpointing(cache, tmp_path):
    recipe = recipe_for(
        cache, tmp_path, gradient_checkpointing=True, adversarial=AdversarialConfig(epsilon=0.01)
    )
    assert np.isfinite(losses(trainer_for(recipe), 3)).all()


def test_a_network_without_positions_has_no_keypoints_to_move(cache, tmp_path):
    blind = replace(NETWORK, keypoint_encoder=())
    with pytest.raises(ConfigError, match=r"adversarial\.epsilon moves keypoints"):
        recipe_for(cache, tmp_path, network=blind, adversarial=AdversarialConfig(epsilon=0.01))


def test_float16_scales_the_loss_trains_and_resumes(cache, tmp_path):
    loop = replace(LOOP, precision="float16")
    optimiser = OptimiserConfig(name="muon", learning_rate=1e-3, clip=1.0)
    recipe = recipe_for(cache, tmp_path / "half", loop=loop, optimiser=optimiser)
    trainer = trainer_for(recipe)
    assert trainer.scaler.is_enabled()
    found = losses(trainer, 3)
    exact = trainer_for(recipe_for(cache, tmp_path / "exact", optimiser=optimiser))
    assert not exact.scaler.is_enabled()
    expected = losses(exact, 3)
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected
    trainer.save()
    resumed = trainer_for(recipe)
    assert resumed.step == 3
    assert resumed.scaler.state_dict() == trainer.scaler.state_dict()
    assert losses(resumed, 3) == losses(trainer, 3)


@pytest.fixture
def drawn(corpus: Path, tmp_path: Path) -> SuperGlueRecipe:
    torch.manual_seed(0)
    tiny = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)
    save(SuperPoint(tiny).eval(), tmp_path / "sp.safetensors", "tiny-kind", "test")
    views = ViewRecipe(corpus=str(corpus), width=128, height=96, keypoints=60)
    stage = Stage(
        name="scaled",
        steps=2,
        views=views,
        scales=(0.5, 1.0),
        sampling=SamplingConfig(keypoints=48, pairs=2),
    )
    return SuperGlueRecipe(
        output=str(tmp_path / "run"),
        detector=str(tmp_path / "sp.safetensors"),
        stages=(stage,),
        network=NETWORK,
        start="random",
        sinkhorn_iterations=5,
        loop=LOOP,
    )


def test_the_loss_is_the_mean_over_the_scales(drawn):
    objective = SuperGlueObjective(drawn)
    objective.network.eval()
    small, large = objective._describe(objective.draw(0, rng(0)))
    assert small.size0[0].tolist() == [64, 48]
    assert large.size0[0].tolist() == [128, 96]
    assert small.keypoints0[..., 0].max() < 64 < large.keypoints0[..., 0].max()
    assert (small.matches0 >= 0).any()
    with torch.no_grad():
        each = [float(objective._likelihood(one)[0]) for one in (small, large)]
        found, _ = objective.loss(objective.draw(0, rng(0)))
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)


def test_scales_are_of_drawn_views_and_make_whole_cells(drawn, cache):
    stage = drawn.stages[0]
    with pytest.raises(ConfigError, match=r"at scale 0\.7 views are 89\.6x67\.2"):
        replace(stage, scales=(0.7,))
    with pytest.raises(ConfigError, match=r"scales must be numbers above 0"):
        replace(stage, scales=(2.0,))
    with pytest.raises(ConfigError, match=r"make a cache for each"):
        Stage(name="a", steps=1, caches={str(cache): 1.0}, scales=(0.5, 1.0))
