"""Training on pairs that are drawn at every step: SuperGlue, and SuperGlue with descriptors."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weights import save
from superglue_ros.settings import load
from superglue_ros.training.data.batches import SamplingConfig
from superglue_ros.training.objectives.end_to_end import EndToEndObjective
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.objectives.superglue import SuperGlueObjective
from superglue_ros.training.optimisation import OptimiserConfig
from superglue_ros.training.recipes import EndToEndRecipe, Stage, SuperGlueRecipe, ViewRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer

from ...recorded_room import Recorded, write_megadepth, write_scannet

RECIPES = Path(__file__).parents[3] / "config" / "train"
TINY = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)
NETWORK = SuperGlueConfig(descriptor_dim=16, width=16, layers=1, heads=2, keypoint_encoder=(8,))
LOOP = LoopConfig(precision="float32", report_every=1, validate_every=0, device="cpu")


@pytest.fixture
def detector(tmp_path: Path) -> str:
    torch.manual_seed(0)
    path = tmp_path / "sp.safetensors"
    save(SuperPoint(TINY).eval(), path, "tiny-kind", "test")
    return str(path)


@pytest.fixture
def views(corpus: Path) -> ViewRecipe:
    return ViewRecipe(corpus=str(corpus), width=128, height=96, keypoints=60)


@pytest.fixture
def recipe(detector: str, views: ViewRecipe, tmp_path: Path) -> SuperGlueRecipe:
    sampling = SamplingConfig(keypoints=48, pairs=2)
    return SuperGlueRecipe(
        output=str(tmp_path / "run"),
        detector=detector,
        stages=(Stage(name="drawn", steps=6, views=views, sampling=sampling),),
        network=NETWORK,
        sinkhorn_iterations=5,
        optimiser=OptimiserConfig(learning_rate=3e-3),
        loop=LOOP,
    )


def trainer_for(recipe: SuperGlueRecipe) -> Trainer:
    objective = SuperGlueObjective(recipe)
    return Trainer(
        objective,
        objective.steps,
        recipe.loop,
        recipe.optimiser,
        recipe.schedule,
        Path(recipe.output),
    )


def losses(recipe: SuperGlueRecipe) -> list[str]:
    with (Path(recipe.output) / "log.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file) if row["loss"]]


def test_a_resumed_run_and_one_with_workers_give_the_same_losses(recipe, tmp_path):
    trainer_for(recipe).run()
    expected = losses(recipe)
    assert len(expected) == len(set(expected)) == 6

    parts = replace(recipe, output=str(tmp_path / "parts"))
    begun = trainer_for(parts)
    begun.budget.steps = 3
    begun.run()
    resumed = trainer_for(parts)
    assert resumed.step == 3
    resumed.run()
    assert losses(parts) == expected

    ahead = replace(recipe, output=str(tmp_path / "ahead"), loop=replace(LOOP, workers=2))
    trainer_for(ahead).run()
    assert losses(ahead) == expected


def test_batches_have_the_keypoints_and_pairs_that_the_stage_names(recipe):
    stage = recipe.stages[0]
    whole = SamplingConfig(keypoints=60, pairs=3, drop=0.0, best_first=1.0, score_noise=0.0)
    objective = SuperGlueObjective(
        replace(recipe, start="random", stages=(replace(stage, sampling=whole),))
    )
    drawn = objective.draw(0, np.random.default_rng(0))
    (batch,) = objective._describe(drawn)
    assert batch.keypoints0.shape == batch.keypoints1.shape == (3, 60, 2)
    assert batch.mask0 is None
    assert (batch.matches0 >= 0).sum() == (batch.matches1 >= 0).sum() > 20
    assert batch.size0.tolist() == [[128.0, 96.0]] * 3


def made_small(name: str, output: Path, **views) -> SuperGlueRecipe:
    """A shipped recipe with its packaged SuperPoint; network, views and steps are shrunk."""
    shipped = load(RECIPES / f"{name}.yaml", SuperGlueRecipe)
    return replace(
        shipped,
        output=str(output),
        network=replace(NETWORK, descriptor_dim=256),
        start="random",
        validation="",
        stages=tuple(
            replace(
                stage,
                steps=1,
                views=replace(stage.views, width=128, height=96, keypoints=60, **views),
                sampling=replace(stage.sampling, keypoints=60, pairs=2),
            )
            for stage in shipped.stages
        ),
        loop=LOOP,
    )


def assert_trains(recipe: SuperGlueRecipe) -> None:
    trainer_for(recipe).run()
    found = [float(loss) for loss in losses(recipe)]
    assert len(found) == len(recipe.stages)
    assert all(10 < loss < 10_000 for loss in found)  # equation 10 is a sum over 120 keypoints


@pytest.mark.parametrize("name", ["paper_homography", "report"])
def test_shipped_recipes_with_drawn_pairs_train_when_they_are_made_small(name, corpus, tmp_path):
    assert_trains(made_small(name, tmp_path / "run", corpus=str(corpus)))


@pytest.mark.parametrize(
    ("name", "layout"), [("paper_indoor", "scannet"), ("paper_outdoor", "megadepth")]
)
def test_the_paper_s_recipes_train_on_their_layouts(name, layout, tmp_path, monkeypatch):
    """With the folders that the shipped recipes name, from where the data set lies."""
    recorded = Recorded(np.zeros(0), count=4, step=10)
    if layout == "scannet":
        write_scannet(tmp_path / "scannet" / "scene0000_00", recorded)
    else:
        scores = np.full((4, 4), 0.5, np.float32)
        write_megadepth(tmp_path / "megadepth", recorded, scores)
    monkeypatch.chdir(tmp_path)
    recipe = made_small(name, tmp_path / "run")
    if layout == "scannet":  # the room's frames lie closer together than the recipe's gaps
        (stage,) = recipe.stages
        near = tuple(replace(source, gap=(1, 2)) for source in stage.views.sequences)
        views = replace(stage.views, sequences=near)
        recipe = replace(recipe, stages=(replace(stage, views=views),))
    assert_trains(recipe)


def test_caches_of_another_detector_than_that_of_drawn_pairs_are_refused(recipe, cache):
    message = r"holds features of test-kind, the others of tiny-kind"
    with pytest.raises(DataError, match=message):
        SuperGlueObjective(replace(recipe, validation=str(cache)))


def test_a_stage_has_either_caches_or_views(views):
    with pytest.raises(ConfigError, match=r"stage a: give caches .* or views"):
        Stage(name="a", steps=1)
    with pytest.raises(ConfigError, match=r"stage a: give caches .* or views"):
        Stage(name="a", steps=1, caches={"c": 1.0}, views=views)
    with pytest.raises(ConfigError, match=r"stage a: views\.views must be 2, not 3"):
        Stage(name="a", steps=1, views=replace(views, views=3))


def test_a_detector_is_refused_where_all_features_are_stored():
    stage = Stage(name="a", steps=1, caches={"c": 1.0})
    with pytest.raises(ConfigError, match=r"detector is for stages with views"):
        SuperGlueRecipe(output="o", stages=(stage,), detector="sp.safetensors")


@pytest.fixture
def both(detector: str, views: ViewRecipe, tmp_path: Path) -> EndToEndRecipe:
    torch.manual_seed(1)
    matcher = tmp_path / "sg.safetensors"
    save(SuperGlue(NETWORK).eval(), matcher, "tiny-kind", "test")
    return EndToEndRecipe(
        output=str(tmp_path / "both"),
        steps=2,
        superpoint=detector,
        superglue=str(matcher),
        pairs=2,
        views=views,
        sinkhorn_iterations=5,
        loop=LOOP,
    )


def test_all_terms_of_the_loss_count_in_end_to_end_training(both):
    def value(**terms: float) -> float:
        objective = EndToEndObjective(replace(both, loss=LossConfig("mean", **terms)))
        return float(objective.loss(objective.draw(0, np.random.default_rng(0)))[0].detach())

    plain = value()
    trained = EndToEndObjective(both).parameters()
    squares = sum(float(p.detach().square().sum()) for p in trained)
    assert value(regularisation=1e-3) == pytest.approx(plain + 1e-3 * squares, rel=1e-4)
    once, twice = value(confidence=0.1), value(confidence=0.2)
    assert once > plain + 1e-3
    assert twice - once == pytest.approx(once - plain, rel=1e-3)


def test_end_to_end_training_draws_pairs(both, views):
    with pytest.raises(ConfigError, match=r"views\.views must be 2, not 3"):
        replace(both, views=replace(views, views=3))
