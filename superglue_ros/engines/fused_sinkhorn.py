"""Optimal transport on a GPU in the log domain: a half iteration is one launch of a Triton kernel.

    u_i = log p_i - logsumexp_j (z_ij + v_j),   and the same for v with the transposed scores

A GPU has exponentials to spare, so that nothing of the kernel scaling of
:mod:`superglue_ros.networks.sinkhorn` is needed: no drift, no absorption, no branch. Each program
reduces one row; columns are the rows of a transposed copy. Triton comes with PyTorch for CUDA.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from superglue_ros.networks.sinkhorn import augment, log_sinkhorn, marginals

log = logging.getLogger(__name__)

_LOWEST = -1e30
"""Start of a running maximum: minus infinity would give NaN."""
_TOLERANCE = 1e-4
BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _half_iteration(z, other, log_marginal, out, rows, columns, LOWEST, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row ``program_id(0)`` of pair ``program_id(1)``: z (P, rows, columns), other (P, columns)."""
    row = tl.program_id(1) * rows + tl.program_id(0)
    scores = z + row.to(tl.int64) * columns
    potentials = other + tl.program_id(1) * columns
    peak = LOWEST
    total = 0.0
    for start in range(0, columns, BLOCK):
        j = start + tl.arange(0, BLOCK)
        inside = j < columns
        x = tl.load(scores + j, mask=inside, other=LOWEST)
        x += tl.load(potentials + j, mask=inside, other=0.0)
        higher = tl.maximum(peak, tl.max(x, 0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), 0)
        peak = higher
    tl.store(out + row, tl.load(log_marginal + row) - peak - tl.log(total))


def fused_sinkhorn(
    scores: Tensor, dustbin: Tensor, iterations: int, mask0: Tensor, mask1: Tensor
) -> Tensor:
    """Log assignment (B, M+1, N+1), as :func:`superglue_ros.networks.sinkhorn.log_sinkhorn`.

    float32; a fixed sequence of launches, which waits for nothing. The masks are not optional.
    """
    z = augment(scores, dustbin).contiguous()
    transposed = z.transpose(1, 2).contiguous()
    log_p, log_q = (x.contiguous() for x in marginals(z, mask0, mask1))
    u = torch.empty_like(log_p)
    v = torch.zeros_like(log_q).masked_fill(log_q == -torch.inf, -torch.inf)
    pairs, rows, columns = z.shape
    for _ in range(iterations):
        _half_iteration[rows, pairs](z, v, log_p, u, rows, columns, _LOWEST, BLOCK=BLOCK)
        _half_iteration[columns, pairs](
            transposed, u, log_q, v, columns, rows, _LOWEST, BLOCK=BLOCK
        )
    return z.add_(u.unsqueeze(2)).add_(v.unsqueeze(1))


@lru_cache(maxsize=8)
def works_on(device: torch.device) -> bool:
    """Whether the kernel compiles here and gives what the log domain gives in float64."""
    generator = torch.Generator().manual_seed(0)
    scores = 20 * torch.randn(2, 40, 30, generator=generator)
    masks = [torch.arange(n) < torch.tensor([[n], [n - 9]]) for n in (40, 30)]
    expected = log_sinkhorn(scores.double(), torch.tensor(1.0), 5, *masks)
    try:
        dustbin = torch.tensor(1.0, device=device)
        given = [mask.to(device) for mask in masks]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            found = fused_sinkhorn(scores.to(device), dustbin, 5, *given).double().cpu()
    except Exception as error:  # the compiler's exceptions have no common base
        reason = str(error).strip().partition("\n")[0]
        log.warning("optimal transport runs without its Triton kernel: %s", reason)
        return False
    if not torch.allclose(found, expected, rtol=0, atol=_TOLERANCE):
        log.warning("optimal transport runs without its Triton kernel, which gives other results")
        return False
    return True
