"""Every option of SuperGlue trains: each of its parameters has a gradient, padded or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.weights import load_superglue
from superglue_ros.training.data.batches import SamplingConfig, collate, read_pair
from superglue_ros.training.data.cache import read_cache
from superglue_ros.training.objectives.assignment import assign, doubt_loss, head_losses
from superglue_ros.training.objectives.loss import LossConfig
from superglue_ros.training.objectives.superglue import SuperGlueObjective, sides
from superglue_ros.training.recipes import Stage, SuperGlueRecipe
from superglue_ros.training.trainer import LoopConfig, Trainer

PLAIN = SuperGlueConfig(descriptor_dim=16, width=16, layers=2, heads=2, keypoint_encoder=(8,))
OPTIONS = {
    "sinusoids": {"sinusoids": 3},
    "edges": {"edges": 4},
    "mean": {"aggregation": "mean"},
    "max": {"aggregation": "max"},
    "mean with edges": {"aggregation": "mean", "edges": 4},
    "temperature": {"temperature": 4.0},
    "dustbins": {"separate_dustbins": True},
    "top-k": {"top_k": 5, "top_k_block": 4},
    "position bias": {"position_bias": 0.16},
    "neighbours": {"neighbours": 3},
    "scales": {"scales": (1.0, 0.5, 0.1)},
    "iterations": {"learned_iterations": 30},
    "uncertainty": {"uncertainty": True},
    "many": {
        "edges": 3, "position_bias": 0.2, "neighbours": 4, "prune": 0.02, "scales": (1.0, 0.25),
        "temperature": 2.0, "separate_dustbins": True, "learned_iterations": 20,
        "uncertainty": True, "hierarchy": 2,
    },
}  # fmt: skip


def recipe_for(cache: Path, output: Path, **network) -> SuperGlueRecipe:
    sampling = SamplingConfig(keypoints=24, pairs=4, drop=0.2)
    return SuperGlueRecipe(
        output=str(output),
        stages=(Stage(name="only", steps=4, caches={str(cache): 1.0}, sampling=sampling),),
        network=replace(PLAIN, **network),
        start="random",
        sinkhorn_iterations=20,
        loop=LoopConfig(precision="float32", report_every=1, device="cpu"),
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_of_an_option_has_a_gradient(cache, tmp_path, option):
    objective = SuperGlueObjective(recipe_for(cache, tmp_path, **OPTIONS[option]))
    network = objective.network
    # What starts without effect hides the gradient of what comes before it.
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.abs().sum():
                parameter.normal_(0, 0.1)
    loss, _ = objective.loss(objective.draw(0, np.random.default_rng(0)))
    loss.backward()
    assert torch.isfinite(loss)
    own = set(dict(network.named_parameters())) - set(dict(SuperGlue(PLAIN).named_parameters()))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if name in own:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("option", OPTIONS)
def test_a_padded_batch_trains_as_its_pairs_do(cache, option):
    """With fixed batch norm, which would see the whole batch."""
    torch.manual_seed(0)
    network = SuperGlue(replace(PLAIN, **OPTIONS[option])).eval()
    if network.stop is not None:
        network.stop.train()  # real numbers of iterations, as in training
    shards, _ = read_cache(cache)
    samples = [read_pair(shards[0], i) for i in range(2)]
    samples[1] = replace(
        samples[1],
        sides=tuple(
            tuple(x[:9] if x.dim() and len(x) > 2 else x for x in s) for s in samples[1].sides
        ),
        labels=replace(
            samples[1].labels,
            matches0=np.minimum(samples[1].labels.matches0[:9], -1),
            matches1=np.minimum(samples[1].labels.matches1[:9], -1),
        ),
    )
    whole = assign(network, *sides(collate(samples)), 20, torch.float32)
    for i, (sample, n) in enumerate(zip(samples, (24, 9), strict=True)):
        one = assign(network, *sides(collate([sample])), 20, torch.float32)
        rows = [*range(n), 24]
        found = whole.log_assignment[i][rows][:, rows]
        torch.testing.assert_close(found, one.log_assignment[0], atol=3e-4, rtol=1e-4)
        if one.iterations is not None:
            torch.testing.assert_close(whole.iterations[i : i + 1], one.iterations)


def test_iterations_cost_and_fall(cache, tmp_path):
    recipe = recipe_for(cache, tmp_path, learned_iterations=40)
    costly = replace(
        recipe,
        sinkhorn_iterations=40,
        loss=LossConfig(iterations=50.0),
        optimiser=replace(recipe.optimiser, learning_rate=0.03),
        stages=(replace(recipe.stages[0], steps=12),),
    )
    objective = SuperGlueObjective(costly)
    batch = objective.draw(0, np.random.default_rng(0))
    before = float(objective._forward(objective.network, batch, 40).iterations.detach().mean())
    Trainer(
        objective, 12, costly.loop, costly.optimiser, costly.schedule, Path(costly.output)
    ).run()
    after = float(objective._forward(objective.network, batch, 40).iterations.detach().mean())
    assert before == pytest.approx((1 + 0.2 * 39) / 40, rel=1e-4)
    assert after < 0.9 * before
    assert load_superglue(tmp_path / "weights.safetensors").network.stop is not None


def test_the_doubt_s_loss_is_the_cross_entropy_of_the_scores(cache):
    torch.manual_seed(0)
    network = SuperGlue(replace(PLAIN, uncertainty=True)).eval()
    torch.nn.init.normal_(network.doubt.linear.weight)
    network.doubt.log_scale.data.fill_(0.3)
    shards, _ = read_cache(cache)
    batch = collate([read_pair(shards[0], 0)])
    assigned = assign(network, *sides(batch), 20, torch.float32)
    p = assigned.log_assignment[0, :-1, :-1].detach().numpy()
    labels = batch.matches0[0].numpy()
    terms = []
    for i, j in enumerate(p.argmax(axis=1)):
        if p[:, j].argmax() == i and labels[i] != -2:
            score = float(assigned.log_scores[0, i, j].detach().exp())
            terms.append(-np.log(score if labels[i] == j else 1 - score))
    assert len(terms) > 2
    found = float(doubt_loss(assigned, batch.matches0).detach())
    assert found == pytest.approx(np.mean(terms), rel=1e-4)
    weighted = head_losses(LossConfig(uncertainty=3.0), assigned, batch.matches0)
    assert float(weighted.detach()) == pytest.approx(3 * found, rel=1e-5)
