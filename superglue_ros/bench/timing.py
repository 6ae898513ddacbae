"""Paired timings: contenders are interleaved, so that other load affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Paired:
    """Seconds of every contender in every round, in the order of the rounds."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Median time of one contender in seconds."""
        return float(np.median(self.seconds[name]))

    def best(self, name: str) -> float:
        """Shortest time of one contender in seconds: the least disturbed round."""
        return min(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times as long ``slow`` takes: median of the ratios of the single rounds."""
        return float(np.median(np.divide(self.seconds[slow], self.seconds[fast])))


def paired(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time every contender once per round, after one round that does not count.

    ``clock``: seconds; ``time.process_time`` for one thread on a machine that others use too.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        names = list(contenders)
        for name in names if turn % 2 else reversed(names):
            elapsed = _once(contenders[name], clock)
            if turn:
                seconds[name].append(elapsed)
    return Paired(seconds)


def device_seconds(work: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Time that the device works on one call, from many in a row: without the host's launches.

    On a GPU by its own clock (CUDA events), elsewhere by the host's.
    """
    for _ in range(2):
        work()
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - started) / repeats
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 / repeats


def _once(work: Callable[[], object], clock: Callable[[], float]) -> float:
    _wait()
    started = clock()
    work()
    _wait()
    return clock() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
