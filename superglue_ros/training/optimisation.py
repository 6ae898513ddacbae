"""Optimisers, learning-rate schedules and the exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from superglue_ros.settings import setting

_MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # K. Jordan's: steepest at zero


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


class Muon(torch.optim.Optimizer):
    """Muon with equal-shaped matrices orthogonalised together, scaled to the size of AdamW's steps.

    The same steps as ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, in as many
    launches as the network has shapes of matrices instead of for every one of them.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float | Tensor, decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not supported."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike = shapes.setdefault(parameter.shape, [])
                    alike.append((parameter, parameter.grad))
            for shape, pairs in shapes.items():
                parameters, gradients = [p for p, _ in pairs], [g for _, g in pairs]
                momenta = [self._momentum(p) for p in parameters]
                torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
                updates = orthogonalise(
                    torch.stack(torch._foreach_lerp(gradients, momenta, _MOMENTUM))
                )
                rate = group["lr"]
                torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
                change = updates.float() * (-0.2 * max(shape) ** 0.5 * rate)
                torch._foreach_add_(parameters, list(change.unbind()))

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (B, M, N) with nearly equal singular values, bfloat16: five Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class MuonAdamW:
    """Muon for the matrices among the parameters, AdamW for all others, at one learning rate.

    Muon orthogonalises the update of a matrix, which trains attention in a fraction of AdamW's
    steps; its updates are scaled to the size of AdamW's.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        given = list(parameters)
        matrices = [p for p in given if p.ndim == 2]
        others = [p for p in given if p.ndim != 2]
        options = _device_options(given, rate)
        self._parts: list[torch.optim.Optimizer] = [
            Muon(matrices, options["lr"], decay),
            torch.optim.AdamW(others, weight_decay=decay, **options),
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
    given = list(parameters)
    cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    options = _device_options(given, config.learning_rate)
    return cls(given, weight_decay=config.weight_decay, **options)


def set_learning_rate(optimiser: torch.optim.Optimizer | MuonAdamW, rate: float) -> None:
    """Set the rate of all groups, in place where a CUDA graph reads it from the device."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore(optimiser: torch.optim.Optimizer | MuonAdamW, state: dict[str, Any]) -> None:
    """Load a checkpoint's state; how the steps are computed remains that of this device."""
    kept = ("lr", "fused", "capturable", "foreach")
    before = [{k: group[k] for k in kept if k in group} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, own in zip(optimiser.param_groups, before, strict=True):
        group.update(own)


def _device_options(parameters: Iterable[nn.Parameter], rate: float) -> dict[str, Any]:
    """Options of Adam on the parameters' device: on a GPU one launch, fit for a CUDA graph."""
    device = next((p.device for p in parameters), torch.device("cpu"))
    if device.type != "cuda":
        return {"lr": rate}
    return {"lr": torch.tensor(rate, device=device), "fused": True, "capturable": True}


class MovingAverage:
    """Exponential moving average of a network's parameters and batch norm statistics."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network``; early steps have more weight, to forget the start sooner."""
        decay = min(self.decay, (step + 1) / (step + 10))
        means, values = ([*n.parameters(), *n.buffers()] for n in (self.network, network))
        floating = [m.dtype.is_floating_point for m in means]
        torch._foreach_lerp_(
            list(compress(means, floating)), list(compress(values, floating)), 1 - decay
        )
        for mean, value, is_float in zip(means, values, floating, strict=True):
            if not is_float:
                mean.copy_(value)
