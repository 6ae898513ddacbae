"""Optimisers, learning-rate schedules and the exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from superglue_ros.errors import ConfigError
from superglue_ros.settings import setting


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser; the defaults are the paper's Adam at a constant rate (appendix E)."""

    name: str = setting(
        "adam", "Adam, AdamW with decoupled decay, or Muon for matrices and AdamW for the rest.",
        choices=("adam", "adamw", "muon"),
    )  # fmt: skip
    learning_rate: float = setting(1e-4, "Highest learning rate.", low=0.0)
    weight_decay: float = setting(0.0, "Weight decay.", low=0.0)
    clip: float = setting(0.0, "Largest norm of the gradient; 0 does not clip.", low=0.0)
    ema: float = setting(
        0.0, "Decay of the moving average of the weights that is exported; 0 = none.",
        low=0.0, high=0.99999,
    )  # fmt: skip


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps, as a factor of the highest.

    ``exponential`` is the paper's: constant for ``hold`` steps, then times ``decay`` per step;
    ``step`` the report's: times ``decay`` every ``hold`` steps; ``cosine`` falls from the end of
    ``hold`` to ``floor`` at the last step.
    """

    form: str = setting("constant", "Shape.", choices=("constant", "exponential", "step", "cosine"))
    warmup: int = setting(0, "Steps of linear rise at the start.", low=0)
    hold: int = setting(0, "Steps at the highest rate, or between two steps down.", low=0)
    decay: float = setting(1.0, "Factor per step, or per step down.", low=0.0, high=1.0)
    floor: float = setting(0.0, "Smallest factor.", low=0.0, high=1.0)


def learning_rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """Factor of the highest learning rate at ``step`` of ``total``."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    after = max(0, step - config.hold)
    if config.form == "exponential":
        factor = config.decay**after
    elif config.form == "step":
        factor = config.decay ** (step // max(config.hold, 1))
    elif config.form == "cosine":
        share = min(1.0, after / max(total - config.hold, 1))
        factor = (1 + math.cos(math.pi * share)) / 2
    else:
        factor = 1.0
    return warm * max(factor, config.floor)


class MuonAdamW:
    """Muon for the matrices among the parameters, AdamW for all others, at one learning rate.

    Muon orthogonalises the update of a matrix, which trains attention in a fraction of AdamW's
    steps; its updates are scaled to the size of AdamW's.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        """Raises :class:`ConfigError` where PyTorch is older than 2.9."""
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"muon needs torch 2.9 or newer, this is {torch.__version__}")
        given = list(parameters)
        matrices = [p for p in given if p.ndim == 2]
        others = [p for p in given if p.ndim != 2]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, weight_decay=decay),
        ]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, to set their learning rates."""
        return [group for part in self._parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step of both."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, for a checkpoint."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for part, values in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(values)


def make_optimiser(
    parameters: Iterable[nn.Parameter], config: OptimiserConfig
) -> torch.optim.Optimizer | MuonAdamW:
    """The optimiser of ``config``; its learning rate is set at every step."""
    if config.name == "muon":
        return MuonAdamW(parameters, config.learning_rate, config.weight_decay)
    cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return cls(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


class MovingAverage:
    """Exponential moving average of a network's parameters and batch norm statistics."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network``; early steps have more weight, to forget the start sooner."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for mean, value in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
