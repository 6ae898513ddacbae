"""Where the networks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from superglue_ros.errors import ConfigError


@contextmanager
def tensor_float(device: torch.device, allowed: bool) -> Iterator[None]:
    """Whether products of float32 on a GPU may round their factors to TF32, as 10 bits.

    PyTorch lets convolutions do so unasked. The switch is the process's; it is put back.
    """
    if device.type != "cuda":
        yield
        return
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def resolve_device(name: str) -> torch.device:
    """``auto`` selects the GPU if there is one; anything else is a torch device name.

    Raises :class:`ConfigError` if the name is unknown or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used ({first_line}): set auto or cpu"
        ) from error
    return device
