"""Counters of the node, and its message on /diagnostics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields, replace

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

HUNG_SECONDS = 20.0
"""A frame or request that takes longer is taken for one that hangs."""
BACKLOG = 20
BACKLOG_SECONDS = 5
"""lossless: more frames than these that wait are a backlog, if they take longer to match, too."""


@dataclass(frozen=True)
class Counts:
    """Frames since activation: ``received = matched + dropped + refused`` + those in progress.

    ``stereo_rejected``: stereo pairs whose matches do not lie on equal rows, which gave no depth.
    """

    received: int = 0
    matched: int = 0
    dropped: int = 0
    refused: int = 0
    resets: int = 0
    stereo_rejected: int = 0

    def since(self, before: Counts) -> Counts:
        """The increase since ``before``, an earlier snapshot; all counts after a restart."""
        if before.received > self.received:
            return self
        return Counts(
            **{
                item.name: getattr(self, item.name) - getattr(before, item.name)
                for item in fields(self)
            }
        )


class Counter:
    """Thread-safe counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, **steps: int) -> None:
        """Add to the named counts."""
        with self._lock:
            self._counts = replace(
                self._counts,
                **{name: getattr(self._counts, name) + step for name, step in steps.items()},
            )

    def snapshot(self) -> Counts:
        """A snapshot of all counts."""
        with self._lock:
            return self._counts

    def reset(self) -> None:
        """Start from zero."""
        with self._lock:
            self._counts = Counts()


@dataclass(frozen=True)
class Health:
    """A snapshot of the node's state.

    ``state`` of the life cycle; ``problem`` why the node could not be configured, ``last_refusal``
    why the last bad frame was refused; ``seconds_per_frame`` networks and geometry of the last one;
    ``silent`` the names of inputs without messages; ``lossless`` the intake's mode, ``waiting_mib``
    the memory of frames that wait; ``busy_seconds`` how long the frame in hand has been worked on.
    """

    state: str
    problem: str = ""
    counts: Counts = Counts()
    since_last: Counts = Counts()
    unsynchronised: int = 0
    waiting: int = 0
    keyframes: int = 0
    last_refusal: str = ""
    seconds_per_frame: float = 0.0
    device: str = ""
    silent: tuple[str, ...] = ()
    lossless: bool = False
    waiting_mib: float = 0.0
    busy_seconds: float = 0.0


def judge(health: Health) -> tuple[bytes, str]:
    """Level and message for a state of health: what needs an operator's attention."""
    if health.problem:
        return DiagnosticStatus.ERROR, health.problem
    if health.state != "active":
        return DiagnosticStatus.OK, f"not active ({health.state})"
    new = health.since_last
    if new.refused:
        return DiagnosticStatus.ERROR, f"{new.refused} frames refused: {health.last_refusal}"
    if health.busy_seconds > HUNG_SECONDS:
        return DiagnosticStatus.ERROR, (
            f"the frame or request in hand takes {health.busy_seconds:.0f} s: a device that hangs?"
        )
    if health.lossless and new.dropped:
        return DiagnosticStatus.ERROR, (
            f"{new.dropped} frames dropped: the {health.waiting_mib:.0f} MiB of intake.max_mib are "
            f"full. Play the bag more slowly"
        )
    if health.lossless and health.waiting > max(BACKLOG, new.matched * BACKLOG_SECONDS):
        return DiagnosticStatus.WARN, (
            f"{health.waiting} frames wait ({health.waiting_mib:.0f} MiB) and come faster than "
            f"they are matched: play the bag more slowly"
        )
    if health.silent:
        return DiagnosticStatus.STALE, "nothing comes from " + ", ".join(health.silent)
    if new.stereo_rejected:
        return DiagnosticStatus.WARN, (
            f"{new.stereo_rejected} stereo pairs gave no depth: their matches are not on equal rows"
        )
    if new.dropped > new.matched:
        return DiagnosticStatus.WARN, "more frames dropped than matched: images come too fast"
    return DiagnosticStatus.OK, "matching"


def diagnostic_array(health: Health, node_name: str, robot: str, stamp: Time) -> DiagnosticArray:
    """The message for ``/diagnostics``."""
    level, text = judge(health)
    values = {item.name: getattr(health.counts, item.name) for item in fields(Counts)}
    values |= {
        "state": health.state,
        "unsynchronised": health.unsynchronised,
        "waiting": health.waiting,
        "waiting MiB": f"{health.waiting_mib:.1f}",
        "busy seconds": f"{health.busy_seconds:.1f}",
        "keyframes": health.keyframes,
        "seconds per frame": f"{health.seconds_per_frame:.4f}",
        "device": health.device,
        "last refusal": health.last_refusal,
    }
    status = DiagnosticStatus(
        level=level,
        name=f"{node_name}: matching",
        message=text,
        hardware_id=robot,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])
