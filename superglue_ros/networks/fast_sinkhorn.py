"""The optimal matching layer for inference: the iterates of ``log_sinkhorn``, many times faster.

The log domain costs a logarithm and an exponential per matrix entry and iteration. On the kernel
K = exp(Z + u + v), with potentials u, v absorbed, the same iteration is two matrix-vector products:

    a = p / (K b),   b = q / (K' a),   u + log a and v + log b are the potentials of eq. 9.

That is exact as long as a and b stay near 1. The Sinkhorn update does not expand in the maximum
norm (log-sum-exp does not), so with step d = max |v_t - v_(t-1)| the next n iterates drift by at
most n d: this bounds how long a kernel may be used before it is absorbed anew, and it bounds what
the remaining iterations can still change. A step too large for a kernel is taken in the log domain:
that is the first one, from nothing; after it a dustbin holds every step below log(M + N).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from superglue_ros.networks.sinkhorn import augment, log_sinkhorn, marginals

MAX_DRIFT = 15.0
"""Largest |log a|, |log b|. A kernel entry is floored at exp(-60): against a row sum of at least
exp(-15) that is below 1e-12 relative, and no product becomes a (slow) denormal number."""
FLOOR = -60.0
CHECK_EVERY = 10
"""Iterations between two looks at the drift (on a GPU each one waits for the device)."""


@dataclass(frozen=True, eq=False)
class Transport:
    """Result of the optimal transport.

    ``log_assignment`` (B, M+1, N+1), as of :func:`log_sinkhorn`. ``iterations`` made in all, of
    them ``log_domain`` in the log domain, with ``kernels`` absorptions.
    """

    log_assignment: Tensor
    iterations: int
    log_domain: int
    kernels: int


def sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment (B, M+1, N+1) by whichever way is fast and exact; see :func:`log_sinkhorn`.

    Within 1e-4 of the log domain for scores up to +-100. Under autograd, where every iteration is
    recorded, it is :func:`log_sinkhorn` itself.
    """
    if torch.is_grad_enabled() and (scores.requires_grad or dustbin.requires_grad):
        return log_sinkhorn(scores, dustbin, iterations, mask0, mask1)
    return transport(scores, dustbin, iterations, mask0, mask1).log_assignment


def transport(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Transport:
    """Optimal transport of eq. 9 by stabilised kernel scaling; arguments as :func:`log_sinkhorn`.

    Stops early once all remaining iterations together cannot change a log assignment by more than
    ``tolerance`` (0 = never).
    """
    z = augment(scores, dustbin)
    log_p, log_q = marginals((len(z), z.shape[1] - 1, z.shape[2] - 1), mask0, mask1, z)
    p, q = log_p.exp(), log_q.exp()
    kernel = torch.empty_like(z)
    u = torch.zeros_like(log_p)
    v = torch.zeros_like(log_q).masked_fill(log_q == -torch.inf, -torch.inf)
    a, b = torch.ones_like(u), torch.ones_like(v)
    step, drift = float("inf"), float("inf")
    done = log_domain = kernels = 0
    while done < iterations and step * (iterations - done) > tolerance:
        if step > MAX_DRIFT:
            u = log_p - _log_sum_exp(z, v.unsqueeze(1), 2, kernel)
            new = log_q - _log_sum_exp(z, u.unsqueeze(2), 1, kernel)
            step, drift, v = _largest(new - v), float("inf"), new
            done, log_domain = done + 1, log_domain + 1
            continue
        if drift + step > MAX_DRIFT:
            torch.add(z, u.unsqueeze(2), out=kernel)
            kernel.add_(v.unsqueeze(1)).clamp_(min=FLOOR).exp_()
            a, b, drift = torch.ones_like(u), torch.ones_like(v), 0.0
            u0, v0, kernels = u, v, kernels + 1
        block = min(iterations - done, CHECK_EVERY, int((MAX_DRIFT - drift) / max(step, 1e-6)))
        previous = b
        for _ in range(block):
            previous = b
            a = p / _product(kernel, b)
            b = q / _product(kernel.transpose(1, 2), a)
        log_a, log_b = a.log(), b.log()
        u, v = u0 + log_a, v0 + log_b
        step, drift = _largest(log_b - previous.log()), max(_largest(log_a), _largest(log_b))
        done += block
    torch.add(z, u.unsqueeze(2), out=kernel)
    return Transport(kernel.add_(v.unsqueeze(1)), done, log_domain, kernels)


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """(B, M, N) times (B, N); pair by pair on the CPU, whose batched product is slow."""
    if matrix.is_cuda or len(matrix) == 1:
        return torch.matmul(matrix, vector.unsqueeze(2)).squeeze(2)
    return torch.stack([torch.mv(m, x) for m, x in zip(matrix, vector, strict=True)])


def _log_sum_exp(z: Tensor, offset: Tensor, dim: int, buffer: Tensor) -> Tensor:
    """``logsumexp(z + offset, dim)`` in the given memory, several times torch's speed on a CPU."""
    torch.add(z, offset, out=buffer)
    top = buffer.amax(dim, keepdim=True)
    return buffer.sub_(top).clamp_(min=FLOOR).exp_().sum(dim).log_().add_(top.squeeze(dim))


def _largest(x: Tensor) -> float:
    """Largest magnitude; padding (-inf, and its differences) does not count."""
    return float(x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().amax())
