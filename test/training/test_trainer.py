import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError, DataError, WeightsError
from superglue_ros.networks.superglue import SuperGlueConfig
from superglue_ros.networks.weights import load_superglue
from superglue_ros.training.data.batches import SamplingConfig
from superglue_ros.training.data.cache import write_shard
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.objectives.superglue import (
    SuperGlueObjective,
    enable_gradient_checkpointing,
)
from superglue_ros.training.optimisation import OptimiserConfig, ScheduleConfig
from superglue_ros.training.recipes import Stage, SuperGlueRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer, TrainingError

from .conftest import synthetic_shard

NETWORK = SuperGlueConfig(descriptor_dim=16, width=16, layers=1, heads=2, keypoint_encoder=(8,))


def recipe_for(cache: Path, output: Path, steps: int = 50, **changes) -> SuperGlueRecipe:
    sampling = SamplingConfig(keypoints=16, pairs=3)
    recipe = SuperGlueRecipe(
        output=str(output),
        stages=(Stage(name="only", steps=steps, caches={str(cache): 1.0}, sampling=sampling),),
        network=NETWORK,
        sinkhorn_iterations=5,
        optimiser=OptimiserConfig(
            name="adamw", learning_rate=3e-3, weight_decay=1e-4, clip=1.0, ema=0.9
        ),
        schedule=ScheduleConfig(form="cosine", warmup=5),
        loss=LossConfig("mean"),
        loop=LoopConfig(precision="float32", report_every=1, validate_every=0, device="cpu"),
    )
    return replace(recipe, **changes)


def trainer_for(recipe: SuperGlueRecipe) -> Trainer:
    objective = SuperGlueObjective(recipe)
    output = Path(recipe.output)
    return Trainer(
        objective, objective.steps, recipe.loop, recipe.optimiser, recipe.schedule, output
    )


def losses(output: Path) -> list[str]:
    with (output / "log.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file) if row["loss"]]


def test_the_same_seed_gives_the_same_50_losses_to_the_last_digit(cache, tmp_path):
    for name in ("a", "b"):
        trainer_for(recipe_for(cache, tmp_path / name)).run()
    first, second = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert len(first) == 50
    assert first == second
    other = recipe_for(
        cache,
        tmp_path / "c",
        loop=LoopConfig(seed=1, precision="float32", report_every=1, device="cpu"),
    )
    trainer_for(other).run()
    assert losses(tmp_path / "c") != first


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_resumed_equals_in_one_go(cache, tmp_path, name):
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    optimiser = OptimiserConfig(name=name, learning_rate=3e-3, weight_decay=1e-4, clip=1.0, ema=0.9)
    whole = trainer_for(recipe_for(cache, tmp_path / "whole", 20, optimiser=optimiser))
    whole.run()

    recipe = recipe_for(cache, tmp_path / "parts", 20, optimiser=optimiser)
    interrupted = trainer_for(recipe)
    interrupted.budget.steps = 20
    advance = interrupted._advance

    def stop_at_11(*drawn) -> dict[str, float]:
        if interrupted.step == 11:
            raise KeyboardInterrupt
        numbers = advance(*drawn)
        if interrupted.step == 9:
            interrupted.save()
        return numbers

    interrupted._advance = stop_at_11
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    resumed = trainer_for(recipe)
    assert resumed.step == 9
    resumed.run()

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for a, b in zip(whole.exported.parameters(), resumed.exported.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batches_drawn_ahead_by_workers_give_the_same_run(cache, tmp_path):
    stages = tuple(
        Stage(name=name, steps=4, caches={str(cache): 1.0}, sampling=sampling)
        for name, sampling in (
            ("first", SamplingConfig(keypoints=24, pairs=4)),
            ("second", SamplingConfig(keypoints=32, pairs=2)),
        )
    )
    for name, workers in (("alone", 0), ("helped", 2)):
        loop = LoopConfig(precision="float32", report_every=1, workers=workers, device="cpu")
        trainer_for(recipe_for(cache, tmp_path / name, stages=stages, loop=loop)).run()
    assert len(losses(tmp_path / "alone")) == 8
    assert losses(tmp_path / "helped") == losses(tmp_path / "alone")


def test_training_makes_the_loss_fall(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path / "run", 60, start="random")
    trainer_for(recipe).run()
    found = [float(loss) for loss in losses(tmp_path / "run")]
    assert sum(found[-10:]) < 0.8 * sum(found[:10])
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(cache, tmp_path):
    trainer = trainer_for(recipe_for(cache, tmp_path / "run", 30))
    trainer.save()
    with torch.no_grad():
        trainer.objective.network.final.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"at step 0 \(stage only\).*last\.ckpt"):
        trainer.run()
    again = trainer_for(recipe_for(cache, tmp_path / "run", 30))
    assert all(torch.isfinite(p).all() for p in again.objective.network.parameters())


def test_a_checkpoint_of_another_architecture_is_refused(cache, tmp_path):
    trainer_for(recipe_for(cache, tmp_path / "run", 2)).run()
    wider = replace(NETWORK, layers=2)
    with pytest.raises(WeightsError, match=r"layers is 1, the recipe says 2"):
        trainer_for(recipe_for(cache, tmp_path / "run", 2, network=wider))


def test_training_starts_as_the_optimal_matching_layer(cache, tmp_path):
    objective = SuperGlueObjective(recipe_for(cache, tmp_path / "run"))
    network = objective.network.eval()
    descriptors = torch.nn.functional.normalize(torch.randn(2, 5, 16), dim=2)
    mask = torch.ones(1, 5, dtype=torch.bool)
    x0 = network.encode(
        torch.rand(2, 5, 2) * 90, torch.rand(2, 5), descriptors, torch.full((2, 2), 100.0)
    )
    scores = network.score_matrix(x0[:1], x0[1:], mask, mask)
    cosines = descriptors[:1] @ descriptors[1:].transpose(1, 2)
    scale = float((scores / cosines).detach().median())
    assert round(scale, 3) in (10, 20, 40, 60)  # calibrated about start_scale = 20
    torch.testing.assert_close(scores, scale * cosines, atol=1e-3, rtol=1e-4)
    assert 0.25 * scale < network.dustbin.item() < 0.85 * scale


def test_frozen_batch_norm_trains_the_network_that_is_used(cache, tmp_path):
    """Not a running statistic moves, and a pair gives the same alone as in a batch."""
    recipe = recipe_for(cache, tmp_path, 20, frozen_batch_norm=True, validation=str(cache))
    trainer = trainer_for(replace(recipe, optimiser=OptimiserConfig(learning_rate=3e-3)))
    before = {k: v.clone() for k, v in trainer.objective.network.named_buffers()}
    assert any("running_mean" in name for name in before)
    trainer.run()
    for name, value in trainer.objective.network.named_buffers():
        assert torch.equal(value, before[name]), name
    rows = losses(tmp_path)
    assert float(rows[-1]) < float(rows[0])
    assert trainer.objective.network.training  # validation gives the modes back as they were
    norms = [m for m in trainer.objective.network.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_gradient_checkpointing_gives_the_same_gradients(cache, tmp_path):
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        objective = SuperGlueObjective(recipe_for(cache, tmp_path / "a", start="random"))
        if checkpointed:
            enable_gradient_checkpointing(objective.network)
        loss, _ = objective.loss(objective.draw(0, np.random.default_rng(0)))
        loss.backward()
        found.append([p.grad.clone() for p in objective.network.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_stages_follow_one_another(cache, tmp_path):
    caches = {str(cache): 1.0}
    stages = tuple(Stage(name=name, steps=3, caches=caches) for name in ("easy", "hard"))
    objective = SuperGlueObjective(recipe_for(cache, tmp_path / "run", stages=stages))
    assert objective.steps == 6
    assert [objective.stage(step) for step in (0, 2, 3, 5)] == ["easy", "easy", "hard", "hard"]


def test_all_terms_of_the_loss_add_up(cache, tmp_path):
    rng = np.random.default_rng

    def value(**terms: float) -> float:
        recipe = recipe_for(cache, tmp_path / "run", loss=LossConfig("sum", **terms))
        objective = SuperGlueObjective(recipe)
        return float(objective.loss(objective.draw(0, rng(0)))[0].detach())

    plain = value()
    network = SuperGlueObjective(recipe_for(cache, tmp_path / "run")).network
    squares = sum(float(p.detach().square().sum()) for p in network.parameters())
    assert value(regularisation=1e-3) == pytest.approx(plain + 1e-3 * squares, rel=1e-4)
    assert value(confidence=0.1) > plain


def test_descriptors_of_another_size_and_mixed_detectors_are_refused(cache, tmp_path):
    wrong = replace(NETWORK, descriptor_dim=32)
    with pytest.raises(ConfigError, match=r"descriptor_dim is 32, the cached descriptors have 16"):
        SuperGlueObjective(recipe_for(cache, tmp_path / "run", network=wrong))
    other = tmp_path / "other"
    write_shard(synthetic_shard(3), other / "s.safetensors", "another-kind", '"r"')
    recipe = recipe_for(cache, tmp_path / "run", validation=str(other))
    with pytest.raises(DataError, match=r"holds features of another-kind, the others of test-kind"):
        SuperGlueObjective(recipe)


def test_resident_batches_train_and_resume_as_in_one_go(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path / "whole", 30, resident=True, frozen_batch_norm=True)
    trainer_for(recipe).run()
    whole = losses(tmp_path / "whole")
    assert np.mean([float(x) for x in whole[-5:]]) < np.mean([float(x) for x in whole[:5]])
    parts = replace(recipe, output=str(tmp_path / "parts"))
    first = trainer_for(parts)
    first.budget.done = lambda step: step >= 12
    first.run()
    trainer_for(parts).run()
    assert losses(tmp_path / "parts") == whole


def test_a_time_budget_takes_stages_and_rate_from_the_clock_and_writes_the_weights(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path / "run", 600)
    only = recipe.stages[0]
    recipe = replace(
        recipe,
        stages=(replace(only, name="a", steps=300), replace(only, name="b", steps=300)),
        loop=replace(recipe.loop, minutes=0.05),
        resident=True,
    )
    trainer = trainer_for(recipe)
    trainer.run()
    assert trainer.budget.seconds >= 3
    with (tmp_path / "run/log.csv").open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file) if row["rate"]]
    assert rates[-1] < 0.1 * max(rates)
    assert load_superglue(tmp_path / "run/weights.safetensors").network.config == NETWORK


def test_a_time_budget_shorter_than_a_step_is_refused(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path / "run")
    recipe = replace(recipe, loop=replace(recipe.loop, minutes=1e-6))
    with pytest.raises(ConfigError, match=r"loop\.minutes is 1e-06, and one step took"):
        trainer_for(recipe).run()
