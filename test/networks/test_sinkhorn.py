"""Inference, training and export give the assignment and gradients of the log-domain reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.networks.sinkhorn import (
    MAX_RANGE,
    fixed_sinkhorn,
    log_sinkhorn,
    sinkhorn,
    training_sinkhorn,
    transport,
)

DUSTBIN = torch.tensor(1.5)


def fixed(scores, dustbin, iterations=100, mask0=None, mask1=None):
    batch, m, n = scores.shape
    mask0 = torch.ones(batch, m, dtype=torch.bool) if mask0 is None else mask0
    mask1 = torch.ones(batch, n, dtype=torch.bool) if mask1 is None else mask1
    return fixed_sinkhorn(scores, dustbin, iterations, mask0, mask1)


# The form, and how far its log assignment may be from the log domain in float64.
FORMS = {
    "reference": (log_sinkhorn, 2e-4),
    "inference": (sinkhorn, 1e-4),
    "training": (training_sinkhorn, 2e-4),
    "fixed": (fixed, 2e-4),
}
forms = pytest.mark.parametrize(("form", "tolerance"), FORMS.values(), ids=FORMS)


def exact(scores, dustbin=DUSTBIN, iterations=100, mask0=None, mask1=None):
    return log_sinkhorn(scores.double(), dustbin.double(), iterations, mask0, mask1)


def scores_of(kind: str, m: int, n: int) -> torch.Tensor:
    torch.manual_seed(m + n)
    if kind == "unit":
        return torch.randn(1, m, n)
    if kind == "trained":  # a clear partner for every second keypoint, the rest unlikely
        scores = 3 * torch.randn(1, m, n) - 8
        count = min(m, n) // 2
        scores[0, torch.randperm(m)[:count], torch.randperm(n)[:count]] += 20
        return scores
    if kind == "uniform":
        return (2 * torch.rand(1, m, n) - 1) * 100
    if kind == "crowded":  # all rows want the same three columns: potentials wander far
        scores = 20 * torch.randn(1, m, n)
        scores[:, :, :3] += 80
        return scores.clamp(-100, 100)
    scores = torch.full((1, m, n), -100.0)
    scores[0].fill_diagonal_(100.0)
    return scores


def test_the_reference_solves_a_problem_known_in_closed_form():
    # One keypoint each: both dustbins hold one, so the assignment is [[p, 1-p], [1-p, p]] with
    # odds (p / (1 - p))^2 = exp(score + dustbin - 2 dustbin).
    score, dustbin = 3.0, 1.0
    probability = log_sinkhorn(torch.tensor([[[score]]]), torch.tensor(dustbin), 200).exp()[0]
    p = 1 / (1 + torch.exp(torch.tensor((dustbin - score) / 2)))
    expected = torch.stack([torch.stack([p, 1 - p]), torch.stack([1 - p, p])])
    torch.testing.assert_close(probability, expected, atol=1e-5, rtol=0)


@forms
@pytest.mark.parametrize("kind", ["unit", "trained", "uniform", "crowded", "extreme"])
@pytest.mark.parametrize("size", [(60, 60), (97, 40), (1, 50), (50, 1), (1, 1)])
def test_log_assignment_is_that_of_the_log_domain(form, tolerance, kind, size):
    scores = scores_of(kind, *size)
    result = form(scores, DUSTBIN, 100)
    assert result.dtype == torch.float32
    assert (result - exact(scores)).abs().max() < tolerance


@forms
@pytest.mark.parametrize("kind", ["unit", "trained", "uniform", "crowded"])
def test_a_padded_pair_gives_what_it_gives_alone(form, tolerance, kind):
    counts = [(30, 25), (12, 40), (40, 1)]
    position = torch.arange(40)
    mask0 = torch.stack([position < m for m, _ in counts])
    mask1 = torch.stack([position < n for _, n in counts])
    scores = torch.cat([scores_of(kind, 40, 40) for _ in counts])
    result = form(scores, DUSTBIN, 100, mask0, mask1)
    for i, (m, n) in enumerate(counts):
        alone = exact(scores[i : i + 1, :m, :n])[0]
        assert (result[i, :m, :n] - alone[:m, :n]).abs().max() < tolerance
        assert (result[i, :m, -1] - alone[:m, -1]).abs().max() < tolerance
        assert (result[i, -1, :n] - alone[-1, :n]).abs().max() < tolerance
        assert (result[i, m:-1] == -torch.inf).all()
        assert (result[i, :, n:-1] == -torch.inf).all()


@forms
@pytest.mark.parametrize(("m", "n"), [(0, 4), (4, 0)])
def test_an_empty_side_leaves_every_keypoint_to_the_dustbin(form, tolerance, m, n):
    probability = form(torch.zeros(1, m, n), DUSTBIN, 20).exp()[0]
    expected = torch.ones(m + 1, n + 1)
    expected[-1, -1] = 0  # the other dustbin expects no match
    torch.testing.assert_close(probability, expected, atol=tolerance, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0, 100),
    st.floats(-30, 30),
    st.integers(1, 120),
    st.integers(0, 2**31),
)
def test_any_scores_and_any_number_of_iterations(m, n, spread, dustbin, iterations, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = (2 * torch.rand(1, m, n, generator=generator) - 1) * spread
    alpha = torch.tensor(dustbin)
    difference = sinkhorn(scores, alpha, iterations) - exact(scores, alpha, iterations)
    assert difference.abs().max() < 1e-4


@forms
def test_rows_and_columns_sum_to_their_marginals(form, tolerance):
    torch.manual_seed(0)
    assignment = form(torch.randn(1, 5, 6), torch.tensor(1.0), 100).exp()[0]
    torch.testing.assert_close(assignment.sum(1), torch.tensor([1.0] * 5 + [6]), atol=1e-4, rtol=0)
    torch.testing.assert_close(assignment.sum(0), torch.tensor([1.0] * 6 + [5]), atol=1e-4, rtol=0)


def test_columns_sum_to_their_marginals_where_rows_have_not_converged():
    probability = sinkhorn(scores_of("crowded", 30, 20), DUSTBIN).exp()[0]
    assert torch.allclose(probability[:, :-1].sum(0), torch.ones(20), atol=1e-3)
    assert probability[:, -1].sum() == pytest.approx(30, rel=1e-3)


def test_inference_stops_early_only_where_nothing_changes_any_more():
    easy = transport(scores_of("unit", 60, 60), DUSTBIN)
    assert easy.iterations < 40
    assert (easy.log_assignment - exact(scores_of("unit", 60, 60))).abs().max() < 2e-5
    hard = transport(scores_of("crowded", 60, 60), DUSTBIN)
    assert hard.iterations == 100
    assert transport(scores_of("crowded", 60, 60), DUSTBIN, tolerance=0).iterations == 100


def test_in_inference_large_scores_take_new_kernels():
    assert transport(scores_of("unit", 60, 60), DUSTBIN).kernels == 1
    crowded = transport(scores_of("crowded", 60, 60), DUSTBIN)
    assert crowded.kernels > 1
    assert crowded.log_domain == 1


def gradients(function, scores, mask0=None, mask1=None):
    scores = scores.clone().requires_grad_(True)
    dustbin = torch.tensor(0.7, requires_grad=True)
    assignment = function(scores, dustbin, 20, mask0, mask1)
    finite = torch.isfinite(assignment)
    assignment.masked_fill(~finite, 0).square().sum().backward()
    return assignment.detach(), scores.grad, dustbin.grad


def test_under_autograd_inference_is_the_reference():
    scores = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    expected = gradients(log_sinkhorn, scores)
    assert expected[1].abs().sum() > 1
    for a, b in zip(gradients(sinkhorn, scores), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("form", [training_sinkhorn, fixed], ids=["training", "fixed"])
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_value_and_gradient_equal_the_log_domain(form, scale):
    torch.manual_seed(1)
    scores = scale * torch.randn(2, 7, 9)
    for a, b in zip(gradients(log_sinkhorn, scores), gradients(form, scores), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


def test_in_training_a_padded_pair_has_the_gradient_it_has_alone():
    torch.manual_seed(1)
    scores = torch.randn(2, 7, 9)
    mask0 = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    mask1 = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    padded, gradient, _ = gradients(training_sinkhorn, scores, mask0, mask1)
    alone, alone_gradient, _ = gradients(training_sinkhorn, scores[1:, :5, :6])
    torch.testing.assert_close(padded[1, :5, :6], alone[0, :5, :6])
    torch.testing.assert_close(padded[1, :5, -1], alone[0, :5, -1])
    torch.testing.assert_close(gradient[1, :5, :6], alone_gradient[0], atol=1e-4, rtol=1e-4)
    assert torch.isneginf(padded[1, 5:7]).all()
    assert (gradient[1, 5:] == 0).all()
    assert (gradient[1, :, 6:] == 0).all()


def test_in_training_scores_too_wide_for_exponentials_fall_back():
    scores = torch.zeros(1, 3, 3)
    scores[0, 0, 0] = 2 * MAX_RANGE
    dustbin = torch.tensor(0.0)
    assert training_sinkhorn(scores, dustbin, 10).equal(log_sinkhorn(scores, dustbin, 10))
