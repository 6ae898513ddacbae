"""Lower bound of the time on this machine: operations over measured rates.

The rates are those of torch's matrix product and attention on large operands, measured in the same
run as the times they are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.bench.timing import paired
from superglue_ros.networks.superglue import SuperGlueConfig


@dataclass(frozen=True)
class Rates:
    """Operations per second (a multiply-add counts as two), and bytes per second."""

    linear: float
    attention: float
    stream: float


def measure_rates(device: torch.device, rounds: int = 7) -> Rates:
    """Best rates of a matrix product, of attention in 64-wide heads, and of reading memory."""
    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    q, k, v = (torch.randn(2, 4, 1024, 64, device=device) for _ in range(3))
    kernel, x = torch.rand(2048, 2048, device=device), torch.rand(2048, device=device)

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    with torch.inference_mode():
        times = paired(
            {"linear": lambda: a @ b, "attention": attend, "stream": lambda: kernel @ x}, rounds
        )
    return Rates(
        2 * 2048**3 / times.best("linear"),
        4 * 2 * 4 * 1024**2 * 64 / times.best("attention"),
        4 * 2048**2 / times.best("stream"),
    )


def floor_seconds(
    config: SuperGlueConfig, m: int, n: int, rates: Rates, iterations: int = 100
) -> float:
    """A pair of ``m`` and ``n`` keypoints: 10 N D^2 and 2 N^2 D multiply-adds per image and layer.

    Optimal transport: its kernel is read twice per iteration.
    """
    d, layers = config.width, 2 * config.layers
    linear = 2 * layers * 10 * (m + n) * d * d + 2 * (m + n) * d * d + 2 * m * n * d
    self_attention = 4 * d * (m * m + n * n)
    cross_attention = 4 * d * 2 * m * n
    attention = config.layers * (self_attention + cross_attention)
    transport = iterations * 2 * 4 * (m + 1) * (n + 1)
    return linear / rates.linear + attention / rates.attention + transport / rates.stream
