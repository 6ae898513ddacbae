"""SIGINT and SIGTERM at random moments of start-up and work: exit code 0, and no traceback."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from matcher_process import QUICK, Matcher, Peer
from rich.console import Console
from rich.progress import track

FIRST = 1.0  # seconds: an interpreter that only starts cannot do better than the kernel's default
PATIENCE = 60.0


@dataclass(frozen=True)
class Signalled:
    """A process that was sent ``number`` (``times`` times) after ``seconds``."""

    number: str
    times: int
    seconds: float
    phase: str
    exit_code: int
    log: str

    @property
    def good(self) -> bool:
        """Whether it ended as promised."""
        return self.exit_code == 0 and "Traceback" not in self.log

    def __str__(self) -> str:
        return (
            f"{self.number} x{self.times} after {self.seconds:.2f} s ({self.phase}): exit code "
            f"{self.exit_code}, log ends {self.log[-600:]!r}"
        )


def sweep(folder: Path, count: int, seed: int = 0) -> list[Signalled]:
    """End ``count`` processes, by either signal, at moments from the first second on."""
    if not count:
        return []
    rng, peer = random.Random(seed), Peer()
    try:
        start = time.monotonic()
        matcher = _start(folder, peer, -1)
        matcher.prime()
        ready = time.monotonic() - start
        matcher.process.send_signal(signal.SIGTERM)
        matcher.process.wait(PATIENCE)
        return [
            _end(folder, peer, number, rng, ready)
            for number in track(range(count), "signals", console=Console(stderr=True))
        ]
    finally:
        peer.close()


def _start(folder: Path, peer: Peer, number: int) -> Matcher:
    parameters = {**QUICK, "autostart": True, "intake.mode": "lossless"}
    return Matcher(folder / f"signal{number}.log", parameters, peer=peer)


def _end(folder: Path, peer: Peer, number: int, rng: random.Random, ready: float) -> Signalled:
    """Start a process, send frames, and end it at a moment up to half as late again as ready."""
    kind, times = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.choice([1, 2])
    moment = rng.uniform(FIRST, 1.5 * ready)
    for messages in peer.received.values():
        messages.clear()
    begin = time.monotonic()
    matcher = _start(folder, peer, number)
    matcher.clock = 100.0 + 1000.0 * number
    while time.monotonic() - begin < moment:
        at = matcher.tick()
        peer.send(at)
        time.sleep(min(0.05, max(0.0, moment - (time.monotonic() - begin))))
    phase = "at work" if peer.received["status"] else "starting"
    for _ in range(times):
        if matcher.process.poll() is None:
            os.kill(matcher.process.pid, kind)
    try:
        code = matcher.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        matcher.process.kill()
        code = matcher.process.wait()
    return Signalled(kind.name, times, moment, phase, code, matcher.log)
