import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.synthetic.homographies import HomographyRecipe
from superglue_ros.training.data.detector_labels import LabelRecipe, adapt, make_labels, read_labels
from superglue_ros.training.data.shapes import draw_shapes
from superglue_ros.training.objectives.superpoint import (
    SuperPointObjective,
    _targets,
    descriptor_loss,
    detect,
    detection_loss,
    detector_loss,
    match_detections,
)
from superglue_ros.training.optimisation import OptimiserConfig
from superglue_ros.training.recipes import SuperPointRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer

TINY = SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_dim=16)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("labels") / "shapes.safetensors"
    recipe = LabelRecipe(
        output=str(output), teacher="shapes", crops=12, points=40, width=128, height=96
    )
    return make_labels(recipe)


def recipe_for(labels: Path, output: Path, **changes) -> SuperPointRecipe:
    recipe = SuperPointRecipe(
        output=str(output),
        labels=str(labels),
        steps=25,
        network=TINY,
        pairs=2,
        width=64,
        height=48,
        points=40,
        homography=HomographyRecipe(rotation_deg=10, min_overlap=0.3),
        optimiser=OptimiserConfig(learning_rate=3e-3),
        loop=LoopConfig(precision="float32", report_every=1, device="cpu"),
    )
    return replace(recipe, **changes)


def test_detector_loss_by_hand():
    logits = torch.zeros(1, 65, 1, 2)
    cells = torch.tensor([[[3, 64]]])
    target = torch.tensor([[[0.75, 0.0]]])
    assert detector_loss(logits, cells, target).item() == pytest.approx(math.log(65))
    logits[0, 3, 0, 0] = logits[0, 64, 0, 1] = 50.0
    expected = 0.25 * 50 / 2  # a quarter of the first cell's target lies on "no keypoint"
    assert detector_loss(logits, cells, target).item() == pytest.approx(expected, abs=1e-4)


def test_descriptor_loss_of_equal_descriptors_is_the_logarithm_of_their_number():
    same = torch.nn.functional.normalize(torch.ones(5, 4), dim=1)
    far = torch.arange(5)[:, None] * 100.0 * torch.ones(1, 2)
    loss, _ = descriptor_loss(same, same, far, far, torch.zeros(5), 0.1)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)
    near = torch.zeros(5, 2)  # neighbours need not differ
    loss, _ = descriptor_loss(same, same, near, near, torch.zeros(5), 0.1)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_hits_count_the_nearest_in_the_same_view():
    words = torch.eye(4)
    places = torch.arange(4)[:, None] * 50.0 * torch.ones(1, 2)
    _, hits = descriptor_loss(words, words, places, places, torch.zeros(4), 0.1)
    assert hits == 100
    _, hits = descriptor_loss(words, words.roll(1, 0), places, places, torch.zeros(4), 0.1)
    assert hits == 0


def test_detections_are_matched_where_they_see_the_same_point():
    points = torch.tensor([[[10.0, 10], [40, 20], [90, 90]], [[31.0, 10], [60, 24], [12, 90]]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    to_the_right = torch.tensor([[[1.0, 0, 20], [0, 1, 0], [0, 0, 1]]])
    errors, true = match_detections(points, valid, to_the_right)
    assert errors[0, 0, 0] == pytest.approx(1.0)
    assert errors[0, 1, 1] == pytest.approx(4.0)  # too far off to be the same point
    assert torch.isinf(errors[0, :, 2]).all()
    assert true.nonzero().tolist() == [[0, 0, 0]]


def test_detect_gives_the_best_pixels_clear_of_the_border():
    logits = torch.zeros(1, 65, 4, 4)
    logits[:, 64] = 8.0
    logits[0, 3 * 8 + 5, 1, 2] = 9.0
    logits[0, 0, 2, 1] = 12.0
    logits[0, 0, 0, 0] = 20.0  # on the border
    points, valid = detect(logits, 4)
    assert points[0, :2].tolist() == [[8.0, 16.0], [21.0, 11.0]]
    assert valid[0].tolist() == [True, True, False, False]


def test_detections_without_a_partner_are_among_the_candidates():
    a = torch.eye(4)[None, :2].clone().requires_grad_(True)
    b = torch.stack([torch.eye(4)[0], torch.eye(4)[3]])[None].clone()
    errors = torch.tensor([[[0.5, 50.0], [60.0, 70.0]]])
    true = errors < 3
    loss, hits = detection_loss(a, b, errors, true, 0.5)
    # Two candidates from either side: cosine 1 to the partner, 0 to the other.
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    assert hits == 100
    near = torch.tensor([[[0.5, 3.5], [60.0, 70.0]]])  # a neighbour of the partner is no rival
    loss, _ = detection_loss(a, b, near, true, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)) / 2, rel=1e-5)
    nothing, hits = detection_loss(a, b, errors, torch.zeros_like(true), 0.5)
    nothing.backward()
    assert (nothing.item(), hits) == (0, 0)


def test_descriptors_learn_from_detections(shapes, tmp_path):
    recipe = recipe_for(shapes, tmp_path / "run", described="detections", points=30, steps=40)
    objective = SuperPointObjective(recipe)
    torch.manual_seed(0)

    def mean_descriptor_loss() -> float:
        with torch.no_grad():
            numbers = [
                objective.loss(objective.draw(0, np.random.default_rng(seed)))[1]
                for seed in range(20)
            ]
        return float(np.mean([one["descriptor"] for one in numbers]))

    before = mean_descriptor_loss()
    trainer = Trainer(
        objective, 40, recipe.loop, recipe.optimiser, recipe.schedule, tmp_path / "run"
    )
    trainer.run()
    assert mean_descriptor_loss() < 0.85 * before


def test_no_points_give_no_loss_but_a_gradient():
    none = torch.zeros(0, 4, requires_grad=True)
    empty = torch.zeros(0, 2)
    loss, hits = descriptor_loss(none, none, empty, empty, torch.zeros(0), 0.1)
    loss.backward()
    assert (loss.item(), hits) == (0, 0)


def test_targets_name_the_pixel_of_the_best_point_of_a_cell():
    image = np.zeros((16, 24), np.uint8)
    points = np.array([[9.2, 3.1, 1.0], [10.0, 4.0, 0.5], [100.0, 5.0, 0.4]])
    view = _targets(image, np.eye(3), points, 0.0)
    assert view.cells[0, 1] == 3 * 8 + 1
    assert view.target[0, 1] == pytest.approx(0.97)
    assert (view.target > 0).sum() == 1
    shifted = _targets(image, np.array([[1, 0, 0], [0, 1, 8], [0, 0, 1.0]]), points, 0.0)
    assert shifted.cells[1, 1] == 3 * 8 + 1


def test_points_along_an_edge_have_lower_targets_than_corners():
    image = np.full((64, 96), 60, np.uint8)
    image[20:, 24:] = 180
    corner, edge = [24.0, 20.0, 1.0], [60.0, 20.0, 0.9]
    view = _targets(image, np.eye(3), np.array([corner, edge]), 0.3)
    assert view.target[2, 3] == pytest.approx(0.97, abs=0.01)
    assert view.target[2, 7] < 0.02
    every = _targets(image, np.eye(3), np.array([corner, edge]), 0.0)
    assert every.target[2, 7] == pytest.approx(0.97, abs=0.01)


def test_the_detector_alone_leaves_descriptors_as_they_are(shapes, tmp_path):
    recipe = recipe_for(shapes, tmp_path / "run", train_descriptors=False)
    objective = SuperPointObjective(recipe)
    image = torch.rand(1, 1, 48, 64)

    def output() -> list[torch.Tensor]:
        with torch.no_grad():
            return [part.clone() for part in objective.network.eval()(image)]

    logits, descriptors = output()
    objective.network.train()
    for part in (objective.network.backbone, objective.network.descriptor):
        part.eval()
    trainer = Trainer(
        objective, 3, recipe.loop, recipe.optimiser, recipe.schedule, tmp_path / "run"
    )
    trainer.run()
    new_logits, new_descriptors = output()
    assert torch.equal(descriptors, new_descriptors)
    assert not torch.allclose(logits, new_logits, atol=1e-3)


def test_training_finds_shapes_corners_better_and_tells_points_apart(shapes, tmp_path):
    recipe = recipe_for(shapes, tmp_path / "run")
    objective = SuperPointObjective(recipe)

    def mean_loss() -> float:
        """Over twenty fixed batches: a single one says more about its pairs than about training."""
        with torch.no_grad():
            losses = [
                objective.loss(objective.draw(0, np.random.default_rng(seed)))[0]
                for seed in range(20)
            ]
        return float(torch.stack(losses).mean())

    before = mean_loss()
    trainer = Trainer(
        objective, 60, recipe.loop, recipe.optimiser, recipe.schedule, tmp_path / "run"
    )
    trainer.run()
    after = mean_loss()
    assert after < 0.85 * before, (before, after)


@pytest.mark.parametrize("context", [0.0, 0.5])
def test_frozen_blocks_keep_weights_and_statistics(shapes, tmp_path, context):
    recipe = recipe_for(shapes, tmp_path / "run", frozen_blocks=2)
    recipe = replace(recipe, network=replace(recipe.network, context=context))
    objective = SuperPointObjective(recipe)
    frozen = {k: v.clone() for k, v in objective.network.backbone[:2].state_dict().items()}
    trainer = Trainer(
        objective, 3, recipe.loop, recipe.optimiser, recipe.schedule, tmp_path / "run"
    )
    trainer.run()
    for key, value in objective.network.backbone[:2].state_dict().items():
        assert torch.equal(value, frozen[key]), key
    assert len(objective.parameters()) < len(list(objective.network.parameters()))


def test_shapes_corners_lie_inside_and_differ_from_their_surroundings():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(20):
        image, corners = draw_shapes(rng, 160, 120)
        assert image.shape == (120, 160)
        assert (corners >= 0).all()
        assert (corners <= [159, 119]).all()
        for x, y in np.rint(corners).astype(int):
            patch = image[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
            found += int(np.ptp(patch) > 8)
    assert found > 50


def test_adaptation_with_one_homography_is_the_plain_detection():
    torch.manual_seed(0)
    network = SuperPoint(TINY).eval()
    image = np.random.default_rng(0).integers(0, 255, (48, 64)).astype(np.uint8)
    recipe = LabelRecipe(output="x", adaptation=1, precision="float32")
    heat = adapt(network, image, np.random.default_rng(0), recipe, torch.device("cpu"))
    with torch.no_grad():
        logits, _ = network(torch.from_numpy(image)[None, None].float() / 255)
    plain = torch.nn.functional.pixel_shuffle(logits.softmax(1)[:, :-1], 8)[0, 0]
    np.testing.assert_allclose(heat, plain.numpy(), atol=1e-6)


def test_label_files_survive_and_foreign_ones_are_refused(shapes, tmp_path):
    labels = read_labels(shapes)
    assert labels.crops.shape == (12, 96, 128)
    assert labels.points.shape == (12, 40, 3)
    with pytest.raises(DataError, match=r"is no label file"):
        read_labels(tmp_path / "none.safetensors")


def test_sizes_that_are_no_multiple_of_the_cell_are_refused(shapes, tmp_path):
    with pytest.raises(ConfigError, match=r"multiples of 8"):
        SuperPointObjective(recipe_for(shapes, tmp_path / "run", width=100))
