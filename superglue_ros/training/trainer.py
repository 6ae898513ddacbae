"""The training loop of both networks, for an :class:`Objective`.

All random choices of a step depend on (seed, step, process), so a resumed run gives the same
numbers as an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from superglue_ros.errors import SuperglueError
from superglue_ros.settings import setting
from superglue_ros.training.checkpoint import load_checkpoint, save_checkpoint
from superglue_ros.training.data.loading import batches
from superglue_ros.training.distributed import (
    Group,
    all_finite,
    average_gradients,
    join_group,
    leave_group,
    share_start,
)
from superglue_ros.training.optimisation import (
    MovingAverage,
    OptimiserConfig,
    ScheduleConfig,
    learning_rate_factor,
    make_optimiser,
)
from superglue_ros.training.progress import LiveProgress, RunLog, draw_curves

CHECKPOINT = "last.ckpt"


class TrainingError(SuperglueError, ArithmeticError):
    """Training can't go on: the loss is not finite."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop."""

    seed: int = setting(0, "Seed of everything random.", low=0)
    precision: str = setting(
        "auto", "Automatic mixed precision; auto measures.", choices=("auto", "float32", "bfloat16")
    )
    checkpoint_minutes: float = setting(3.0, "Time between checkpoints.", low=0.0)
    validate_every: int = setting(500, "Steps between validations; 0 = only at the end.", low=0)
    report_every: int = setting(20, "Steps per row of the log.", low=1)
    device: str = setting("auto", "auto: the GPU where there is one; else a torch device's name.")
    workers: int = setting(
        0, "Processes that draw batches ahead; 0 = the one that trains does.", low=0
    )


class Objective(Protocol):
    """A network to train, and the loss of one step."""

    network: nn.Module
    device: torch.device

    def architecture(self) -> dict[str, Any]:
        """The architecture that a checkpoint must match."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        ...

    def stage(self, step: int) -> str:
        """Name of the curriculum's stage that ``step`` belongs to."""
        ...

    def stage_end(self, step: int) -> int | None:
        """The first step after the stage that ``step`` belongs to; None for the last stage."""
        ...

    def draw(self, step: int, rng: np.random.Generator) -> Any:
        """The batch of ``step``, in main memory; see :mod:`superglue_ros.training.data.loading`."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and numbers worth reporting."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Numbers on held-out data; empty where there is none."""
        ...


class Trainer:
    """Runs an objective for ``steps`` steps, with checkpoints in ``output``."""

    def __init__(
        self,
        objective: Objective,
        steps: int,
        loop: LoopConfig,
        optimiser: OptimiserConfig,
        schedule: ScheduleConfig,
        output: Path,
    ) -> None:
        self.objective, self.steps, self.loop = objective, steps, loop
        self.optimiser_config, self.schedule, self.output = optimiser, schedule, output
        self.group: Group = join_group(objective.device)
        self.parameters = objective.parameters()
        self.optimiser = make_optimiser(self.parameters, optimiser)
        self.average = MovingAverage(objective.network, optimiser.ema) if optimiser.ema else None
        self.step = 0
        share_start(objective.network, self.group)
        checkpoint = output / CHECKPOINT
        if checkpoint.exists():
            self._restore(load_checkpoint(checkpoint, objective.architecture()))

    @property
    def exported(self) -> nn.Module:
        """The network to validate and export: the moving average, if there is one."""
        return self.average.network if self.average else self.objective.network

    def run(self) -> None:
        """Train to the last step. Raises :class:`TrainingError` on a loss that is not finite."""
        log = RunLog(self.output / "log.csv", self.step) if self.group.leads else None
        saved = time.monotonic()
        batches = self._batches()
        sums: dict[str, list[float]] = {}
        with LiveProgress(self.steps, self.step, self.loop.report_every) as progress:
            while self.step < self.steps:
                numbers = self._advance(*next(batches))
                for name, value in numbers.items():
                    sums.setdefault(name, []).append(value)
                last = self.step == self.steps
                if not self.group.leads or log is None:
                    continue
                mean = {name: float(np.mean(values)) for name, values in sums.items()}
                progress.show(self.step, self.objective.stage(self.step - 1), mean)
                if self.step % self.loop.report_every == 0 or last:
                    log.add({"step": self.step, **mean})
                    sums.clear()
                every = self.loop.validate_every
                if last or (every and self.step % every == 0):
                    self._validate(log, progress)
                if last or time.monotonic() - saved > 60 * self.loop.checkpoint_minutes:
                    self.save()
                    draw_curves(log.path, self.output / "curves.png")
                    saved = time.monotonic()
        leave_group(self.group)

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            self.output / CHECKPOINT,
            {
                "step": self.step,
                "architecture": self.objective.architecture(),
                "network": self.objective.network.state_dict(),
                "average": self.average.network.state_dict() if self.average else None,
                "optimiser": self.optimiser.state_dict(),
                "configuration": json.dumps(
                    [asdict(self.loop), asdict(self.optimiser_config), asdict(self.schedule)]
                ),
            },
        )

    def _batches(self) -> Iterator[tuple[int, Any]]:
        step = self.step
        while step < self.steps:
            # Worker processes restart at each stage, with its data at that time.
            end = min(self.objective.stage_end(step) or self.steps, self.steps)
            yield from batches(
                self.objective,
                range(step, end),
                self.loop.seed,
                self.group.rank,
                self.loop.workers,
            )
            step = end

    def _advance(self, seed: int, batch: Any) -> dict[str, float]:
        torch.manual_seed(seed)
        rate = self.optimiser_config.learning_rate * learning_rate_factor(
            self.step, self.steps, self.schedule
        )
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        loss, numbers = self.objective.loss(batch)
        if not all_finite(loss, self.group):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {self.step} (stage "
                f"{self.objective.stage(self.step)}): the last good state is in "
                f"{self.output / CHECKPOINT}; lower the learning rate or clip the gradients"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.parameters, self.group)
        if self.optimiser_config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.optimiser_config.clip)
        self.optimiser.step()
        if self.average:
            self.average.update(self.objective.network, self.step)
        self.step += 1
        return {"loss": float(loss.detach()), **numbers, "rate": rate}

    def _validate(self, log: RunLog, progress: LiveProgress) -> None:
        exported = self.exported
        modes = [(module, module.training) for module in exported.modules()]
        found = self.objective.validate(exported.eval())
        for module, training in modes:
            module.training = training
        if found:
            log.add({"step": self.step, **found})
            text = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
            progress.say(f"validation at step {self.step}: {text}")

    def _restore(self, content: dict[str, Any]) -> None:
        self.step = int(content["step"])
        self.objective.network.load_state_dict(content["network"])
        if self.average and content["average"] is not None:
            self.average.network.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
