"""How far a run is: by its steps, or by the clock where it has a time budget."""

from __future__ import annotations

import time

from superglue_ros.errors import ConfigError


class Budget:
    """A number of steps, or minutes in which ``steps`` is only the scale of the schedule.

    With minutes, a run that has used a share of its time stands where one of ``steps`` steps stands
    after that share of them: stages and learning rate follow the clock, however fast the machine.
    """

    def __init__(self, steps: int, minutes: float = 0.0) -> None:
        self.steps, self.minutes = steps, minutes
        self._started = time.monotonic()
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        """Time used, that before a checkpoint included."""
        return self._earlier + time.monotonic() - self._started

    def start(self, earlier: float = 0.0) -> None:
        """Start the clock; ``earlier`` seconds were used before."""
        self._started, self._earlier = time.monotonic(), earlier

    def position(self, step: int) -> int:
        """The step that stage and learning rate of step ``step`` are those of."""
        if not self.minutes:
            return step
        return min(int(self.steps * self.seconds / (60 * self.minutes)), self.steps - 1)

    def done(self, step: int) -> bool:
        """Whether the run ends after ``step`` steps."""
        return self.seconds >= 60 * self.minutes if self.minutes else step >= self.steps

    def check_first_step(self, seconds: float) -> None:
        """Raise :class:`ConfigError` where a step of ``seconds`` takes the whole budget."""
        if self.minutes and seconds >= 60 * self.minutes:
            raise ConfigError(
                f"loop.minutes is {self.minutes:g}, and one step took {seconds:.1f} s: give at "
                f"least {10 * seconds / 60:.2g}, or make the batches smaller"
            )
