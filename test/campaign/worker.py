"""Inputs are read in a forked process: what crashes or hangs it is found, and the rest goes on.

Case ``i`` of a target depends on (seed, target, i) alone, so that any process makes it again.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import generated
from judging import CRASH, HANG, Judge, Outcome
from targets import Files, Target

PATIENCE = 30.0
"""Seconds without progress until a process counts as hanging: 2 s of its own are 15 at most on a
machine that others use too, and a blocked one needs none."""
GENERATED_SHARE = 0.03
_REPORT_EVERY = 0.3  # seconds
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Failure:
    """A bad input and what it did."""

    target: str
    outcome: Outcome
    files: Files


@dataclass
class Tally:
    """What the inputs of one target did."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return sum(self.counts.values())


def attack(target: Target, count: int, seed: int, seconds: float) -> Iterator[Tally]:
    """Try ``count`` inputs, or as many as ``seconds`` allow; yields the tally as it grows."""
    tally, start = Tally(), time.monotonic()
    generates = generated.strategy_of(target) is not None
    mutated = count - round(count * GENERATED_SHARE) * generates
    next_case = 0
    while next_case < mutated and time.monotonic() - start < seconds:
        left = seconds - (time.monotonic() - start)
        work = _mutated(target, next_case, mutated, seed, left)
        for reached in _run(work, target, seed, tally, next_case):
            next_case = reached
            tally.seconds = time.monotonic() - start
            yield tally
    if generates and time.monotonic() - start < seconds:
        for _ in _run(_generated(target, count - mutated, seed), target, None, tally):
            tally.seconds = time.monotonic() - start
            yield tally
    tally.seconds = time.monotonic() - start
    yield tally


def case_of(target: Target, number: int, seed: int) -> Any:
    """Case ``number`` of a target."""
    return target.make(random.Random(f"{seed} {target.name} {number}"))


Say = Callable[[Any], None]
Work = Callable[["ctypes.c_longlong", Say], None]


def _mutated(target: Target, first: int, last: int, seed: int, seconds: float) -> Work:
    def work(current: Any, say: Say) -> None:
        judge, counts = Judge(), Counter[str]()
        end = time.monotonic() + seconds
        said = time.monotonic()
        for number in range(first, last):
            current.value = number
            case = case_of(target, number, seed)
            outcome = judge.judge(lambda: target.read(case))  # noqa: B023
            counts[outcome.kind] += 1
            if outcome.bad:
                say(Failure(target.name, outcome, target.to_files(case)))
            now = time.monotonic()
            if now - said > _REPORT_EVERY or now > end:
                say((number + 1, counts))
                counts, said = Counter[str](), now
                if now > end:
                    return
        say((last, counts))

    return work


def _generated(target: Target, count: int, seed: int) -> Work:
    def work(current: Any, say: Say) -> None:
        judge, counts, places = Judge(), Counter[str](), set[str]()

        def judged(case: Any) -> Outcome:
            current.value += 1
            outcome = judge.judge(lambda: target.read(case))
            counts[outcome.kind] += 1
            return outcome

        def failed(case: Any, outcome: Outcome) -> bool:
            say(Failure(target.name, outcome, target.to_files(case)))
            new = outcome.place not in places
            places.add(outcome.place)
            return new

        generated.run(target, count, seed, judged, failed)
        say((0, counts))

    return work


def _run(
    work: Work, target: Target, seed: int | None, tally: Tally, next_case: int = 0
) -> Iterator[int]:
    """Run ``work`` in a process of its own and add to ``tally``; yields the next case's number."""
    current = _FORK.Value(ctypes.c_longlong, 0, lock=False)
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_child, args=(work, current, sender), daemon=True)
    process.start()
    sender.close()
    seen, moved = -1, time.monotonic()
    ended = ""
    while True:
        if receiver.poll(0.2):
            try:
                said = receiver.recv()
            except EOFError:
                break
            if isinstance(said, Failure):
                tally.failures.append(said)
            else:
                next_case, counts = said
                tally.counts += counts
                yield next_case
        if current.value != seen:
            seen, moved = current.value, time.monotonic()
        elif time.monotonic() - moved > PATIENCE and process.is_alive():
            ended = HANG
            process.kill()
    process.join()
    seen = current.value
    if process.exitcode or ended:
        kind = ended or CRASH
        outcome = Outcome(kind, True, f"exit code {process.exitcode} in case {seen}", kind)
        files = target.to_files(case_of(target, seen, seed)) if seed is not None else {}
        tally.counts[kind] += 1
        tally.counts["not counted before it"] += max(0, seen - next_case)
        tally.failures.append(Failure(target.name, outcome, files))
        yield seen + 1


def _child(work: Work, current: Any, sender: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries below comment on every input
    work(current, sender.send)
    sender.close()
    os._exit(0)  # without the parent's exit handlers
