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
    """An input at a moment; ``heard`` and ``missing`` count messages since its subscription.

    ``silent_s`` seconds since the last message, ``ahead_s`` how far its stamp lies after the node's
    clock (negative: before; None: no message, or no time), ``period_s`` the learned step of stamps.
    """

    topic: str
    heard: int = 0
    missing: int = 0
    silent_s: float = 0.0
    ahead_s: float | None = None
    period_s: float | None = None


@dataclass(frozen=True)
class InputHealth:
    """An input over the last ``seconds``: its state now, messages heard and missing in them."""

    state: InputState
    heard: int
    missing: int
    seconds: float

    @classmethod
    def over(cls, state: InputState, before: InputState, seconds: float) -> InputHealth:
        """From the states now and ``seconds`` ago."""
        return cls(state, state.heard - before.heard, state.missing - before.missing, seconds)

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
        return DiagnosticStatus.WARN, f"no message for {state.silent_s:.0f} s"
    if state.ahead_s is not None and state.ahead_s > MOST_AHEAD_S:
        return DiagnosticStatus.WARN, (
            f"its stamps lie {state.ahead_s:.1f} s in the future: synchronise the clocks"
        )
    if health.lossy:
        return DiagnosticStatus.WARN, (
            f"{health.missing} of {health.missing + health.heard} messages are missing, by their "
            f"stamps"
        )
    if health.seconds >= 0.9 * window and health.rate < min_rate:
        return DiagnosticStatus.WARN, (
            f"{health.rate:.2f} messages per second are fewer than inputs.min_rate, {min_rate:g}"
        )
    return DiagnosticStatus.OK, f"{health.rate:.1f} messages per second"
