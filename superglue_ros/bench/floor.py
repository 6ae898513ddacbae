"""Lower bound of the time on this machine: operations over measured rates.

The rates are those of torch's matrix product and attention on large operands, measured in the same
run as the times they are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.bench.timing import device_seconds, paired
from superglue_ros.engines.precision import FLOAT32, Arithmetic
from superglue_ros.networks.device import tensor_float
from superglue_ros.networks.superglue import SuperGlueConfig


@dataclass(frozen=True)
class Rates:
    """Operations per second (a multiply-add counts as two), and bytes per second."""

    linear: float
    attention: float
    stream: float


def measure_rates(device: torch.device, rounds: int = 7, arithmetic: Arithmetic = FLOAT32) -> Rates:
    """Best rates of a matrix product, of attention in 64-wide heads, and of reading memory.

    ``arithmetic``: of product and attention.
    """
    if device.type == "cuda":
        return _rates_of_gpu(device, arithmetic)
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


@torch.inference_mode()
def _rates_of_gpu(device: torch.device, arithmetic: Arithmetic, side: int = 8192) -> Rates:
    """As :func:`measure_rates`, on operands that fill a GPU, by its own clock.

    Memory: a vector of 256 MiB is read and written, more than any cache holds.
    """
    dtype = arithmetic.dtype
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    q, k, v = (torch.randn(8, 16, 4096, 64, device=device, dtype=dtype) for _ in range(3))
    x = torch.rand(2**26, device=device)
    y = torch.empty_like(x)
    with tensor_float(device, arithmetic.tf32):
        linear = device_seconds(lambda: a @ b, device)
        attention = device_seconds(lambda: F.scaled_dot_product_attention(q, k, v), device)
    stream = device_seconds(lambda: y.copy_(x), device)
    return Rates(2 * side**3 / linear, 4 * 8 * 16 * 4096**2 * 64 / attention, 8 * 2**26 / stream)


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
