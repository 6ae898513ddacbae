"""A training step as one CUDA graph.

A step of a deep, narrow network is a few thousand short kernels, and launching them one by one
takes longer than they do. A graph launches them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)
_EAGER_STEPS = 3  # before capture: libraries choose their kernels, optimisers make their state


class GraphedStep:
    """Calls ``update(batch)`` and, once its shapes are known, replays it as a CUDA graph.

    ``update`` must only launch work on the device; it returns 0-dimensional tensors by name. A
    batch is a dataclass of tensors. Where capture fails, all steps stay eager, as the log says.
    """

    def __init__(self, update: Callable[[Any], dict[str, Tensor]]) -> None:
        self._update = update
        self._shapes: list[torch.Size] = []
        self._eager = 0
        self._failed = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Any = None
        self._found: dict[str, Tensor] = {}
        self._stream = torch.cuda.Stream()

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """One step on ``batch``."""
        shapes = [value.shape for value in _tensors(batch).values()]
        if shapes != self._shapes:
            self._shapes, self._eager = shapes, 0
            self._graph, self._batch, self._found = None, None, {}
        if self._failed:
            return self._update(batch)
        if self._eager < _EAGER_STEPS:
            self._eager += 1
            return self._run_aside(batch)
        if self._graph is None and not self._capture(batch):
            return self._update(batch)
        for name, value in _tensors(self._batch).items():
            value.copy_(getattr(batch, name))
        assert self._graph is not None
        self._graph.replay()
        return {name: value.clone() for name, value in self._found.items()}

    def _run_aside(self, batch: Any) -> dict[str, Tensor]:
        """Eagerly on another stream, as PyTorch's graphs need of the steps before a capture."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = self._update(batch)
        current.wait_stream(self._stream)
        return found

    def _capture(self, batch: Any) -> bool:
        self._batch = replace(batch, **{k: v.clone() for k, v in _tensors(batch).items()})
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._found = self._update(self._batch)
        except RuntimeError as error:
            _LOG.warning("no CUDA graph, steps stay eager: %s", str(error).splitlines()[0])
            self._failed, self._batch = True, None
            torch.cuda.synchronize()
            return False
        self._graph = graph
        _LOG.info("steps of %s are a CUDA graph", tuple(self._shapes[0]))
        return True


def _tensors(batch: Any) -> dict[str, Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
