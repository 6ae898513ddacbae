"""Sinkhorn for training: the iteration of :mod:`.sinkhorn` as matrix-vector products.

The log-domain form makes several passes over the matrix per iteration, forward and backward. Here
both directions are products of one kernel matrix with vectors, and the gradient of the kernel is a
single product of all iterations at the end: an order of magnitude faster on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from superglue_ros.networks.sinkhorn import augment, log_sinkhorn, marginals

MAX_RANGE = 80.0
"""Spread of the scores (natural logarithm) that float32 exponentials hold."""


def sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment (B, M+1, N+1), as :func:`superglue_ros.networks.sinkhorn.log_sinkhorn` gives.

    Falls back to it where scores spread wider than :data:`MAX_RANGE`.
    """
    z = augment(scores.float(), dustbin)
    log_a, log_b = marginals(scores.shape, mask0, mask1, z)  # type: ignore[arg-type]
    row_max = z.detach().amax(dim=2, keepdim=True)
    if bool((row_max.amax() - z.detach().amin()) > MAX_RANGE):
        return log_sinkhorn(scores.float(), dustbin, iterations, mask0, mask1)
    u, v = _Scaling.apply((z - row_max).exp(), log_a.exp(), log_b.exp(), iterations)
    return z - row_max + _log(u).unsqueeze(2) + _log(v).unsqueeze(1)


class _Scaling(torch.autograd.Function):
    """Vectors u, v of the matrix scaling diag(u) K diag(v) with row sums a and column sums b."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, a: Tensor, b: Tensor, iterations: int) -> Any:
        v = torch.where(b > 0, torch.ones_like(b), torch.zeros_like(b))
        before, us, vs = [], [], []
        for _ in range(iterations):
            before.append(v)
            u = a / _times(kernel, v)
            v = b / _times(kernel.transpose(1, 2), u)
            us.append(u)
            vs.append(v)
        ctx.save_for_backward(kernel, a, b, torch.stack(before), torch.stack(us), torch.stack(vs))
        return us[-1], vs[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kernel, a, b, before, us, vs = ctx.saved_tensors
        grad_u, grad_v = gradients
        left, right = [], []
        for t in reversed(range(len(us))):
            # v = b / s with s = K^T u, so ds = -dv v^2 / b; the same for u.
            grad_s = -grad_v * vs[t] * _ratio(vs[t], b)
            left.append(us[t])
            right.append(grad_s)
            grad_u = grad_u + _times(kernel, grad_s)
            grad_r = -grad_u * us[t] * _ratio(us[t], a)
            left.append(grad_r)
            right.append(before[t])
            grad_v = _times(kernel.transpose(1, 2), grad_r)
            grad_u = torch.zeros_like(grad_u)
        grad_kernel = torch.stack(left, dim=2) @ torch.stack(right, dim=1)
        return grad_kernel, None, None, None


def _log(x: Tensor) -> Tensor:
    """Logarithm whose gradient stays finite where padding makes it -inf."""
    positive = x > 0
    return torch.where(positive, x, torch.ones_like(x)).log().masked_fill(~positive, -torch.inf)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.bmm(matrix, vector.unsqueeze(2)).squeeze(2)


def _ratio(x: Tensor, total: Tensor) -> Tensor:
    """X / total, 0 where there is padding."""
    return torch.where(total > 0, x / total, torch.zeros_like(x))
