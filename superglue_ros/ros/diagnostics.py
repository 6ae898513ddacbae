"""Counters of the node, and what it says on /diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from superglue_ros.ros.input_health import InputHealth

BACKLOG = 20
BACKLOG_SECONDS = 5.0
"""lossless: more frames than these that wait are a backlog, if they take longer to match, too."""
FAILURES = 10
"""Frames in a row that fail with an unforeseen error: more of them will."""


@dataclass(frozen=True)
class Counts:
    """Frames since activation: ``received = matched + dropped + refused`` + those in progress.

    ``stereo_rejected``: stereo pairs whose matches do not lie on equal rows, which gave no depth;
    ``masked``: keypoints dropped on masked pixels; ``placed``: frames with a pose in the map.
    """

    received: int = 0
    matched: int = 0
    dropped: int = 0
    refused: int = 0
    resets: int = 0
    stereo_rejected: int = 0
    masked: int = 0
    placed: int = 0

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
    why the last bad frame was refused; ``recent`` the counts of the last ``window`` seconds;
    ``seconds_per_frame`` networks and geometry of the last one; ``silent`` the topics of inputs
    without messages, ``missing`` messages missing between stamps; ``lossless`` the intake's mode,
    ``waiting_mib`` the memory of frames that wait; ``busy_seconds`` how long the frame in hand has
    been worked on, ``hung_after`` when that is too long, ``configuring_seconds`` and
    ``configure_within`` the same of configuring; ``failures`` frames in a row that failed with an
    unforeseen error; ``unplaced`` why the last frame has no pose in the map that was loaded.
    """

    state: str
    problem: str = ""
    counts: Counts = Counts()
    recent: Counts = Counts()
    window: float = 1.0
    unsynchronised: int = 0
    missing: int = 0
    waiting: int = 0
    keyframes: int = 0
    last_refusal: str = ""
    seconds_per_frame: float = 0.0
    device: str = ""
    silent: tuple[str, ...] = ()
    lossless: bool = False
    waiting_mib: float = 0.0
    busy_seconds: float = 0.0
    hung_after: float = 20.0
    configuring_seconds: float = 0.0
    configure_within: float = 300.0
    failures: int = 0
    unplaced: str = ""

    @property
    def rate(self) -> float:
        """Frames matched per second."""
        return self.recent.matched / self.window if self.window else 0.0


def failure(health: Health) -> str:
    """Why the node cannot go on by itself; empty while it can."""
    if health.busy_seconds > health.hung_after:
        return (
            f"the frame or request in hand takes {health.busy_seconds:.0f} s: does the device hang?"
        )
    if health.configuring_seconds > health.configure_within:
        return f"configuring takes {health.configuring_seconds:.0f} s: does the device hang?"
    if health.failures >= FAILURES:
        return f"{health.failures} frames in a row failed: {health.last_refusal}"
    return ""


def judge(health: Health) -> tuple[bytes, str]:
    """Level and message for a state of health: what needs an operator's attention."""
    if health.problem:
        return DiagnosticStatus.ERROR, health.problem
    if failed := failure(health):
        return DiagnosticStatus.ERROR, failed
    if health.state != "active":
        return DiagnosticStatus.OK, f"not active ({health.state})"
    recent, lately = health.recent, f"in the last {health.window:.0f} s"
    if recent.refused:
        return DiagnosticStatus.ERROR, (
            f"{recent.refused} of {recent.received} frames refused {lately}: {health.last_refusal}"
        )
    if health.lossless and recent.dropped:
        return DiagnosticStatus.ERROR, (
            f"{recent.dropped} frames dropped {lately}: the {health.waiting_mib:.0f} MiB of "
            f"intake.max_mib are full. Play the bag more slowly"
        )
    if health.silent:
        return DiagnosticStatus.WARN, "nothing comes from " + ", ".join(health.silent)
    if health.lossless and health.waiting > max(BACKLOG, health.rate * BACKLOG_SECONDS):
        return DiagnosticStatus.WARN, (
            f"{health.waiting} frames wait ({health.waiting_mib:.0f} MiB) and come faster than "
            f"they are matched: play the bag more slowly"
        )
    if recent.stereo_rejected:
        return DiagnosticStatus.WARN, (
            f"{recent.stereo_rejected} stereo pairs gave no depth {lately}: their matches are not "
            f"on equal rows"
        )
    if recent.dropped > recent.matched:
        return DiagnosticStatus.WARN, (
            f"{recent.dropped} of {recent.received} frames dropped {lately}: images come too fast"
        )
    if health.unplaced and recent.matched and not recent.placed:
        return DiagnosticStatus.WARN, f"no pose in the map {lately}: {health.unplaced}"
    return DiagnosticStatus.OK, "matching"


def diagnostic_status(health: Health, node_name: str, robot: str) -> DiagnosticStatus:
    """What ``/diagnostics`` says about the node as a whole."""
    level, text = judge(health)
    values = {item.name: getattr(health.counts, item.name) for item in fields(Counts)}
    values |= {
        "state": health.state,
        "unsynchronised": health.unsynchronised,
        "missing": health.missing,
        "matched per second": f"{health.rate:.2f}",
        "waiting": health.waiting,
        "waiting MiB": f"{health.waiting_mib:.1f}",
        "busy seconds": f"{health.busy_seconds:.1f}",
        "keyframes": health.keyframes,
        "seconds per frame": f"{health.seconds_per_frame:.4f}",
        "device": health.device,
        "last refusal": health.last_refusal,
        "no pose in the map": health.unplaced,
    }
    return _status(level, text, f"{node_name}: matching", robot, values)


def input_status(
    health: InputHealth, verdict: tuple[bytes, str], node_name: str, robot: str
) -> DiagnosticStatus:
    """What ``/diagnostics`` says about one input; ``verdict`` of :func:`judge_input`."""
    state = health.state
    values = {
        "messages per second": f"{health.rate:.2f}",
        "received": state.heard,
        "missing": state.missing,
        "lost on the way": state.lost,
        "seconds since the last": f"{state.silent_s:.1f}",
        "seconds between stamps": "" if state.period_s is None else f"{state.period_s:.4f}",
        "stamp ahead of the clock": "" if state.ahead_s is None else f"{state.ahead_s:.3f}",
    }
    return _status(*verdict, f"{node_name}: input {state.topic}", robot, values)


def _status(
    level: bytes, text: str, name: str, robot: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=text,
        hardware_id=robot,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
