"""The training loop of both networks, for an :class:`Objective`.

All random choices of a step depend on (seed, step, process), so a resumed run gives the same
numbers as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from superglue_ros.errors import SuperglueError
from superglue_ros.settings import setting
from superglue_ros.training.budget import Budget
from superglue_ros.training.checkpoint import load_checkpoint, save_checkpoint
from superglue_ros.training.data.loading import batches, step_randomness
from superglue_ros.training.distributed import (
    Group,
    all_finite,
    average_gradients,
    join_group,
    leave_group,
    share_start,
)
from superglue_ros.training.graphed_step import GraphedStep
from superglue_ros.training.modes import in_evaluation
from superglue_ros.training.optimisation import (
    MovingAverage,
    OptimiserConfig,
    ScheduleConfig,
    learning_rate_factor,
    make_optimiser,
    restore,
    set_learning_rate,
)
from superglue_ros.training.precision import CHOICES, resolve_dtype
from superglue_ros.training.progress import LiveProgress, RunLog, draw_curves

CHECKPOINT = "last.ckpt"


class TrainingError(SuperglueError, ArithmeticError):
    """Training can't go on: the loss is not finite."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop."""

    minutes: float = setting(
        0.0, "Time budget: stages and learning rate follow the clock, and steps are only their "
        "scale; 0: as many steps as the recipe says.", low=0.0,
    )  # fmt: skip
    seed: int = setting(0, "Seed of everything random.", low=0)
    precision: str = setting(
        "auto", "Automatic mixed precision; auto measures float32 and bfloat16. With float16 the "
        "loss is scaled, so that gradients do not underflow.", choices=CHOICES,
    )  # fmt: skip
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

    @property
    def capturable(self) -> bool:
        """Whether ``loss`` only launches work on a GPU, in shapes that only the stage changes."""
        ...

    def write_weights(self, network: nn.Module, folder: Path) -> None:
        """Write ``network`` as weights files that the package reads, if they are complete."""
        ...

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

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
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
        self.objective, self.loop = objective, loop
        self.budget = Budget(steps, loop.minutes)
        self._used = 0.0
        self.optimiser_config, self.schedule, self.output = optimiser, schedule, output
        self.group: Group = join_group(objective.device)
        self.parameters = objective.parameters()
        self.optimiser = make_optimiser(self.parameters, optimiser)
        self.average = MovingAverage(objective.network, optimiser.ema) if optimiser.ema else None
        half = resolve_dtype(loop.precision, objective.device) == torch.float16
        self.scaler = torch.amp.GradScaler(objective.device.type, enabled=half)
        self.step = 0
        self._eager = objective.device.type != "cuda" or self.group.size > 1
        self._update: Callable[[Any], dict[str, Tensor]] = self._learn
        if objective.capturable and not self._eager and not half:
            self._update = GraphedStep(self._learn)
        share_start(objective.network, self.group)
        checkpoint = output / CHECKPOINT
        if checkpoint.exists():
            self._restore(load_checkpoint(checkpoint, objective.architecture()))

    @property
    def exported(self) -> nn.Module:
        """The network to validate and export: the moving average, if there is one."""
        return self.average.network if self.average else self.objective.network

    def run(self) -> None:
        """Train to the end of the budget.

        Raises :class:`TrainingError` on a loss that is not finite, :class:`ConfigError` on a time
        budget too short for one step.
        """
        log = RunLog(self.output / "log.csv", self.step) if self.group.leads else None
        self.budget.start(self._used)
        saved = time.monotonic()
        batches = self._batches()
        sums: dict[str, list[Tensor | float]] = {}
        last = self.budget.done(self.step)
        with LiveProgress(self.budget.steps, self.budget.position(self.step)) as progress:
            while not last:
                begun = self.budget.seconds
                numbers = self._advance(*next(batches))
                for name, value in numbers.items():
                    sums.setdefault(name, []).append(value)
                if self.step == 1:
                    float(numbers["loss"])  # waits for the device
                    self.budget.check_first_step(self.budget.seconds - begun)
                last = self.budget.done(self.step)
                if not self.group.leads or log is None:
                    continue
                if self.step % self.loop.report_every == 0 or last:
                    mean = {name: _mean(values) for name, values in sums.items()}
                    self._check(mean["loss"])
                    if self.loop.minutes:
                        mean["seconds"] = self.budget.seconds
                    done = self.budget.steps if last else self.budget.position(self.step)
                    progress.show(done, self.step, self._stage(self.step - 1), mean)
                    log.add({"step": self.step, **mean})
                    sums.clear()
                every = self.loop.validate_every
                if last or (every and self.step % every == 0):
                    self._validate(log, progress)
                if last or time.monotonic() - saved > 60 * self.loop.checkpoint_minutes:
                    self._check(float(numbers["loss"]))
                    self.save()
                    draw_curves(log.path, self.output / "curves.png")
                    saved = time.monotonic()
        leave_group(self.group)

    def save(self) -> None:
        """Write the checkpoint and the weights."""
        self.objective.write_weights(self.exported, self.output)
        save_checkpoint(
            self.output / CHECKPOINT,
            {
                "step": self.step,
                "seconds": self.budget.seconds,
                "architecture": self.objective.architecture(),
                "network": self.objective.network.state_dict(),
                "average": self.average.network.state_dict() if self.average else None,
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "configuration": json.dumps(
                    [asdict(self.loop), asdict(self.optimiser_config), asdict(self.schedule)]
                ),
            },
        )

    def _batches(self) -> Iterator[tuple[int, Any]]:
        step, steps = self.step, self.budget.steps
        while self.loop.minutes:
            seed, rng = step_randomness(self.loop.seed, self.step, self.group.rank)
            yield seed, self.objective.draw(self.budget.position(self.step), rng)
        while step < steps:
            # Worker processes restart at each stage, with its data at that time.
            end = min(self.objective.stage_end(step) or steps, steps)
            yield from batches(
                self.objective,
                range(step, end),
                self.loop.seed,
                self.group.rank,
                self.loop.workers,
            )
            step = end

    def _stage(self, step: int) -> str:
        return self.objective.stage(self.budget.position(step))

    def _advance(self, seed: int, batch: Any) -> dict[str, Tensor | float]:
        torch.manual_seed(seed)
        position, steps = self.budget.position(self.step), self.budget.steps
        factor = learning_rate_factor(position, steps, self.schedule)
        rate = self.optimiser_config.learning_rate * factor
        set_learning_rate(self.optimiser, rate)
        numbers = self._update(batch)
        if self.average:
            self.average.update(self.objective.network, self.step)
        self.step += 1
        return {**numbers, "rate": rate}

    def _learn(self, batch: Any) -> dict[str, Tensor]:
        """Gradient and step of the optimiser for one batch; loss and numbers worth reporting."""
        loss, numbers = self.objective.loss(batch)
        # On a GPU alone the loss is looked at when it is reported: looking waits for the device.
        if self._eager and not all_finite(loss, self.group):
            self._refuse(float(loss.detach()))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        average_gradients(self.parameters, self.group)
        if self.optimiser_config.clip:
            self.scaler.unscale_(self.optimiser)  # type: ignore[arg-type]  # needs its groups only
            torch.nn.utils.clip_grad_norm_(self.parameters, self.optimiser_config.clip)
        self.scaler.step(self.optimiser)  # type: ignore[arg-type]
        self.scaler.update()
        return {"loss": loss.detach(), **numbers}

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._refuse(loss)

    def _refuse(self, loss: float) -> NoReturn:
        raise TrainingError(
            f"the loss is {loss} at step {self.step} (stage {self._stage(self.step)}): the last "
            f"good state is in {self.output / CHECKPOINT}; lower the learning rate or clip the "
            f"gradients"
        )

    def _validate(self, log: RunLog, progress: LiveProgress) -> None:
        with in_evaluation(self.exported) as network:
            found = self.objective.validate(network)
        if found:
            log.add({"step": self.step, **found})
            text = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
            progress.say(f"validation at step {self.step}: {text}")

    def _restore(self, content: dict[str, Any]) -> None:
        self.step = int(content["step"])
        self.objective.network.load_state_dict(content["network"])
        if self.average and content["average"] is not None:
            self.average.network.load_state_dict(content["average"])
        restore(self.optimiser, content["optimiser"])
        if content.get("scaler"):
            self.scaler.load_state_dict(content["scaler"])
        self._used = float(content.get("seconds", 0.0))


def _mean(values: list[Tensor | float]) -> float:
    first = values[0]
    if isinstance(first, Tensor):  # one copy from the device for all
        return float(torch.stack([torch.as_tensor(v) for v in values]).double().mean())
    return float(np.mean([float(v) for v in values]))
