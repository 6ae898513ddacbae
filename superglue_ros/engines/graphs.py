"""Functions of fixed shapes as CUDA graphs, and copies between host and device that do not wait.

A network of many short kernels takes longer to launch than to compute. A graph launches them all at
once; it is recorded for one set of shapes and one set of buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

_TOLERANCE = 1e-4
_TOLERANCE_LOW = 0.05
"""Largest difference of a replay from the function itself, in parts of 1 or of the value."""


class GraphError(RuntimeError):
    """A graph that cannot be recorded, or does not give what its function gives."""


class FixedFunction:
    """``function`` of tensors of fixed shapes, its ``inputs``, which the caller fills.

    On a GPU it is recorded as a CUDA graph when it is made; elsewhere a call is a call. The
    function must only launch work: it waits for nothing, and no shape depends on values. ``pool``:
    memory of graphs that never run at the same time. ``exact``: all of it is float32.
    Raises :class:`GraphError`.
    """

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        pool: Any = None,
        exact: bool = True,
    ) -> None:
        self.inputs = tuple(inputs)
        self._function = function
        self._graph: Any = None
        self._outputs: tuple[Tensor, ...] = ()
        if self.inputs[0].is_cuda:
            self._record(pool, exact)

    @torch.inference_mode()
    def __call__(self) -> tuple[Tensor, ...]:
        """The outputs for what the inputs hold now; on a GPU the next call overwrites them."""
        if self._graph is None:
            return self._function(*self.inputs)
        with torch.cuda.device(self.inputs[0].device):
            self._graph.replay()
        return self._outputs

    @torch.inference_mode()
    def _record(self, pool: Any, exact: bool) -> None:
        device = self.inputs[0].device
        with torch.cuda.device(device):
            try:
                expected, graph = self._capture(_recording_stream(device), pool)
                graph.replay()
                torch.cuda.synchronize()
            except RuntimeError as error:
                torch.cuda.synchronize()
                raise GraphError(str(error).strip().partition("\n")[0]) from error
        for found, wanted in zip(self._outputs, expected, strict=True):
            if not _alike(found, wanted, _TOLERANCE if exact else _TOLERANCE_LOW):
                raise GraphError("a replay differs from the function that was recorded")
        self._graph = graph

    def _capture(self, stream: Any, pool: Any) -> tuple[tuple[Tensor, ...], Any]:
        """What the function gives when it is called, and its graph."""
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries choose their kernels and take their memory
                expected = tuple(x.clone() for x in self._function(*self.inputs))
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The other threads of the process may use the device meanwhile.
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            self._outputs = self._function(*self.inputs)
        return expected, graph


@lru_cache(maxsize=8)
def _recording_stream(device: torch.device) -> Any:
    """One for all graphs: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)


def _alike(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether two results agree; of whole numbers, which near ties may change, 99 % must."""
    if not found.is_floating_point():
        return bool((found == expected).float().mean() >= 0.99)
    return torch.allclose(found, expected, tolerance, tolerance, equal_nan=True)


@dataclass(eq=False)
class _Pinned:
    """Memory of the host that the device reads and writes by itself, and its last transfer."""

    memory: Tensor
    event: Any


class Transfers:
    """Copies to and from one device through pinned memory, which is kept.

    Uploads return at once; a download waits for the device, once for all of its tensors. One thread
    at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[Hashable, _Pinned] = {}

    def upload(self, values: NDArray | Tensor, into: Tensor) -> None:
        """Copy ``values`` to the device's tensor ``into``, of the same shape."""
        source = values if isinstance(values, Tensor) else torch.from_numpy(values)
        if not into.is_cuda or source.is_cuda:
            into.copy_(source)
            return
        # By where it goes: the lengths of sets vary, their buffers do not.
        pinned = self._memory(("up", into.data_ptr()), into)
        pinned.event.synchronize()  # the transfer before may still read this memory
        memory = pinned.memory[: into.numel()].view(into.shape)
        memory.copy_(source)
        into.copy_(memory, non_blocking=True)
        pinned.event.record(torch.cuda.current_stream(self._device))

    def download(self, *tensors: Tensor) -> list[NDArray]:
        """The tensors as arrays, which are the caller's own."""
        if not tensors[0].is_cuda:
            return [tensor.numpy().copy() for tensor in tensors]
        memories = []
        for index, tensor in enumerate(tensors):
            memory = self._memory(("down", index), tensor).memory
            memories.append(memory[: tensor.numel()].view(tensor.shape))
            memories[-1].copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return [np.array(memory.numpy()) for memory in memories]

    def _memory(self, use: Hashable, like: Tensor) -> _Pinned:
        """At least as much as ``like`` has, flat."""
        key = (use, like.dtype)
        kept = self._pinned.get(key)
        if kept is None or len(kept.memory) < like.numel():
            if kept is not None:
                kept.event.synchronize()
            memory = torch.empty(like.numel(), dtype=like.dtype, pin_memory=True)
            kept = self._pinned[key] = _Pinned(memory, torch.cuda.Event())
        return kept
