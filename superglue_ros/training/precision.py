"""The fastest number format for training on this machine, by measurement.

bfloat16 is four times as fast as float32 on a CPU with AMX and hundreds of times slower on one
without any support; no CPU flag
distinguishes these machines reliably.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F

from superglue_ros.errors import ConfigError

Network = TypeVar("Network", bound=torch.nn.Module)

CHOICES = ("auto", "float32", "bfloat16", "float16")
"""float16 has gradients that underflow: the trainer scales the loss (GradScaler)."""


@lru_cache(maxsize=8)
def fastest_dtype(device: str) -> torch.dtype:
    """float32 or bfloat16, whichever convolves and multiplies faster on ``device``.

    Measured on a CPU; on a GPU bfloat16 wherever it has units for it.
    """
    if device.startswith("cuda"):
        # On a GPU, launching products of this size takes as long as computing them: do not measure.
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    times = {dtype: _time(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    # A clear gain only: bfloat16 costs accuracy and conversions.
    faster = times[torch.bfloat16] < 0.8 * times[torch.float32]
    return torch.bfloat16 if faster else torch.float32


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format for a setting of :data:`CHOICES`; raises :class:`ConfigError` on any other."""
    if name == "auto":
        return fastest_dtype(str(device))
    if name not in CHOICES:
        raise ConfigError(f"precision {name!r} is unknown: choose one of {', '.join(CHOICES)}")
    found: torch.dtype = getattr(torch, name)
    return found


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Automatic mixed precision in ``dtype``; float32 switches it off."""
    low = dtype != torch.float32
    return torch.autocast(device.type, dtype if low else torch.bfloat16, enabled=low)


def channels_last(network: Network) -> Network:
    """Store convolution weights channels last, which halves their time on a CPU.

    Uses ``to``: ``contiguous`` does not change weights with one input channel, and the first and
    largest maps would be computed in the slow layout.
    """
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network


def _time(dtype: torch.dtype, device: str) -> float:
    """Seconds for one convolution and one product of the sizes in training."""
    x = torch.ones(1, 64, 60, 80, dtype=dtype, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, dtype=dtype, device=device)
    a = torch.ones(1024, 256, dtype=dtype, device=device)

    def once() -> float:
        start = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        _ = a @ a.T
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(3))
