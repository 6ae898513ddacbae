import pytest
import torch

from superglue_ros.networks.kernel_sinkhorn import MAX_RANGE, sinkhorn
from superglue_ros.networks.sinkhorn import log_sinkhorn


def gradients(function, scores, mask0=None, mask1=None):
    scores = scores.clone().requires_grad_(True)
    dustbin = torch.tensor(0.7, requires_grad=True)
    assignment = function(scores, dustbin, 20, mask0, mask1)
    finite = torch.isfinite(assignment)
    assignment.masked_fill(~finite, 0).square().sum().backward()
    return assignment.detach(), scores.grad, dustbin.grad


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_value_and_gradient_equal_the_log_domain(scale):
    torch.manual_seed(1)
    scores = scale * torch.randn(2, 7, 9)
    for a, b in zip(gradients(log_sinkhorn, scores), gradients(sinkhorn, scores), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


def test_a_padded_pair_gives_what_it_gives_alone():
    torch.manual_seed(1)
    scores = torch.randn(2, 7, 9)
    mask0 = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    mask1 = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    padded, gradient, _ = gradients(sinkhorn, scores, mask0, mask1)
    alone, alone_gradient, _ = gradients(sinkhorn, scores[1:, :5, :6])
    torch.testing.assert_close(padded[1, :5, :6], alone[0, :5, :6])
    torch.testing.assert_close(padded[1, :5, -1], alone[0, :5, -1])
    torch.testing.assert_close(gradient[1, :5, :6], alone_gradient[0], atol=1e-4, rtol=1e-4)
    assert torch.isneginf(padded[1, 5:7]).all()
    assert (gradient[1, 5:] == 0).all()


def test_scores_too_wide_for_exponentials_fall_back():
    scores = torch.zeros(1, 3, 3)
    scores[0, 0, 0] = 2 * MAX_RANGE
    dustbin = torch.tensor(0.0)
    assert sinkhorn(scores, dustbin, 10).equal(log_sinkhorn(scores, dustbin, 10))


def test_rows_and_columns_sum_to_their_marginals():
    torch.manual_seed(0)
    assignment = sinkhorn(torch.randn(1, 5, 6), torch.tensor(1.0), 100).exp()[0]
    torch.testing.assert_close(assignment[:-1].sum(1), torch.ones(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(assignment[:, :-1].sum(0), torch.ones(6), atol=1e-4, rtol=0)
