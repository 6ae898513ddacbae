"""Optimal matching layer: partial assignment by optimal transport with dustbins (eq. 8-9)."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(scores: Tensor, dustbin: Tensor) -> Tensor:
    """Append the dustbin row and column of eq. 8: (B, M, N) and a scalar to (B, M+1, N+1)."""
    batch, m, n = scores.shape
    column = dustbin.to(scores.dtype).expand(batch, m, 1)
    row = dustbin.to(scores.dtype).expand(batch, 1, n + 1)
    return torch.cat([torch.cat([scores, column], dim=2), row], dim=1)


def marginals(
    shape: tuple[int, int, int], mask0: Tensor | None, mask1: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Logarithms of the expected matches a and b of eq. 9: (B, M+1) and (B, N+1).

    A keypoint expects one match, a dustbin as many as the other image has keypoints, padding none
    (log 0 = -inf, which removes the padded rows and columns from every sum).
    """
    batch, m, n = shape
    valid0 = like.new_ones(batch, m) if mask0 is None else mask0.to(like.dtype)
    valid1 = like.new_ones(batch, n) if mask1 is None else mask1.to(like.dtype)
    a = torch.cat([valid0, valid1.sum(1, keepdim=True)], dim=1)
    b = torch.cat([valid1, valid0.sum(1, keepdim=True)], dim=1)
    return a.log(), b.log()


def log_sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment by Sinkhorn in the log domain: slow, exact, differentiable; the reference.

    ``scores`` (B, M, N); ``mask0`` (B, M), ``mask1`` (B, N) bool, True = a keypoint, False =
    padding. Returns (B, M+1, N+1), the logarithm of the augmented assignment of eq. 9; entries of
    padded rows and columns are -inf.
    """
    batch, m, n = scores.shape
    z = augment(scores, dustbin)
    log_a, log_b = marginals((batch, m, n), mask0, mask1, z)
    u = torch.zeros_like(log_a)
    v = torch.zeros_like(log_b).masked_fill(log_b == -torch.inf, -torch.inf)
    for _ in range(iterations):
        u = log_a - torch.logsumexp(z + v.unsqueeze(1), dim=2)
        v = log_b - torch.logsumexp(z + u.unsqueeze(2), dim=1)
    return z + u.unsqueeze(2) + v.unsqueeze(1)
