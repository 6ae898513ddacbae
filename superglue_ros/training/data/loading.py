"""Batches for the steps of a run, drawn in the training process or ahead by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

Batch = TypeVar("Batch")


class Draws(Protocol):
    """A source of batches; in worker processes it must not use a GPU."""

    def draw(self, step: int, rng: np.random.Generator) -> Any:
        """The batch of ``step``, in main memory."""
        ...


class _Steps(Dataset[Any]):
    """The batch of every step; it depends only on (seed, step, process), not on the worker."""

    def __init__(self, source: Draws, seed: int, rank: int) -> None:
        self._source, self._seed, self._rank = source, seed, rank

    def __getitem__(self, step: int) -> tuple[int, Any]:
        torch_seed, rng = step_randomness(self._seed, step, self._rank)
        return torch_seed, self._source.draw(step, rng)


def step_randomness(seed: int, step: int, rank: int) -> tuple[int, np.random.Generator]:
    """The seed of PyTorch and the generator of one step, of a run's seed in one process."""
    rng = np.random.default_rng([seed, step, rank])
    return int(rng.integers(2**31)), rng


def batches(
    source: Draws, steps: range, seed: int, rank: int, workers: int
) -> Iterator[tuple[int, Any]]:
    """For each of ``steps``, a seed for the step's own randomness, and its batch.

    ``workers`` processes draw ahead; the batches and their order do not depend on their number.
    """
    drawn = _Steps(source, seed, rank)
    if workers == 0:
        return (drawn[step] for step in steps)
    loader: DataLoader[Any] = DataLoader(
        drawn,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        multiprocessing_context="fork",  # data already read is shared
    )
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # before the fork: a child can't stop OpenCV's thread pool
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A dataclass with its tensors on ``device``."""
    moved = {
        name: value.to(device)
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(batch, **moved)  # type: ignore[type-var]


def _as_it_is(drawn: Any) -> Any:
    return drawn


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
