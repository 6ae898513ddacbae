"""How an input is doing: none, slow, gaps, stamps of the future."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

MOST_MISSING = 0.05
"""A larger share of missing messages needs attention."""
FEWEST_MISSING = 3
"""So many at least: a single one says nothing."""
MOST_AHEAD_S = 0.5
"""Stamps further ahead of the clock come from a clock that is not synchronised."""


@dataclass(frozen=True)
class InputState:
    """An input at a moment; ``heard``, ``lost`` and ``missing`` count messages since subscription:
    those that came, that the middleware lost, and the latter with those that stamps leave out.

    ``silent_s`` seconds since the last message, ``ahead_s`` how far its stamp lies after the node's
    clock (negative: before; None: no message, or no time), ``period_s`` the learned step of stamps.
    With ``one_is_enough`` its newest message holds for all images: it is silent before the first.
    """

    topic: str
    heard: int = 0
    lost: int = 0
    missing: int = 0
    silent_s: float = 0.0
    ahead_s: float | None = None
    period_s: float | None = None
    one_is_enough: bool = False


@dataclass(frozen=True)
class InputHealth:
    """An input over the last ``seconds``: its state now, and the increase of its counts."""

    state: InputState
    heard: int
    missing: int
    seconds: float
    lost: int = 0

    @classmethod
    def over(cls, state: InputState, before: InputState, seconds: float) -> InputHealth:
        """From the states now and ``seconds`` ago."""
        return cls(
            state=state,
            heard=state.heard - before.heard,
            missing=state.missing - before.missing,
            seconds=seconds,
            lost=state.lost - before.lost,
        )

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.heard / self.seconds if self.seconds else 0.0

    @property
    def lossy(self) -> bool:
        """Whether more messages are missing than a few."""
        share = self.missing / max(1, self.missing + self.heard)
        return self.missing >= FEWEST_MISSING and share > MOST_MISSING


def judge_input(
    health: InputHealth, *, silent_after: float, min_rate: float, window: float
) -> tuple[bytes, str]:
    """Level and message; a low rate is only judged where a whole window has been looked at."""
    state = health.state
    if state.silent_s > silent_after:
        lost = f": {health.lost} were lost on the way" if health.lost else ""
        return DiagnosticStatus.WARN, f"no message for {state.silent_s:.0f} s{lost}"
    if state.ahead_s is not None and state.ahead_s > MOST_AHEAD_S:
        return DiagnosticStatus.WARN, (
            f"its stamps lie {state.ahead_s:.1f} s in the future: synchronise the clocks"
        )
    if health.lossy:
        return DiagnosticStatus.WARN, (
            f"{health.missing} of {health.missing + health.heard} messages are missing, "
            f"{health.lost} of them lost on the way"
        )
    whole = health.seconds >= 0.9 * window and not state.one_is_enough
    if whole and health.rate < min_rate:
        return DiagnosticStatus.WARN, (
            f"{health.rate:.2f} messages per second are fewer than inputs.min_rate, {min_rate:g}"
        )
    return DiagnosticStatus.OK, f"{health.rate:.1f} messages per second"
