"""The engines through ``torch.compile``; on a GPU their kernels are replayed as CUDA graphs.

A graph is recorded for fixed shapes. So every set of keypoints is padded to one of a few sizes
(*buckets*), and the padding is masked out of the attention. Recording takes seconds to minutes: it
is done when the engine is made, so that the first live frames do not wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from superglue_ros.engines.padded import OPTIONS, PaddedSuperGlue, sizes_up_to
from superglue_ros.engines.superglue import SuperGlueEngine
from superglue_ros.engines.superpoint import Block, Buffers, SuperPointEngine
from superglue_ros.errors import ConfigError
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import SuperPoint

log = logging.getLogger(__name__)

_COMPILED = (*OPTIONS, "learned_iterations", "hierarchy", "uncertainty")
"""Options of a network that act outside of the compiled layers."""


class CompiledSuperGlueEngine(SuperGlueEngine):
    """:class:`SuperGlueEngine` whose layers run as one compiled graph per bucket, pair by pair.

    Sets of more than ``max_keypoints`` (as external keypoints may be) run uncompiled.
    Raises :class:`ConfigError` where torch cannot compile here, e.g. without a C++ compiler, and
    for a network with other attention than the paper's.
    """

    def __init__(
        self,
        network: SuperGlue,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
        max_keypoints: int = 1024,
    ) -> None:
        unknown = [name for name in network.config.options() if name not in _COMPILED]
        if unknown:
            raise ConfigError(
                f"backend compiled does not have the network's {', '.join(unknown)}: set backend "
                f"to torch"
            )
        super().__init__(network, device, dtype, tf32)
        self.buckets = sizes_up_to(max_keypoints)
        self._compiled = _compile(PaddedSuperGlue(self).descriptors, device)
        for bucket in self.buckets:
            tokens = torch.zeros(bucket, self.width, device=device)
            _record(f"SuperGlue, {bucket} keypoints", partial(self._run_once, tokens))

    def _run_once(self, tokens: Tensor) -> None:
        for _ in self.descriptors([tokens], [tokens]):
            pass

    @torch.inference_mode()
    def descriptors(
        self, references: Sequence[Tensor], queries: Sequence[Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """See :meth:`SuperGlueEngine.descriptors`; sizes are padded to the next bucket."""
        for k, (reference, query) in enumerate(zip(references, queries, strict=True)):
            longest = max(len(reference), len(query))
            bucket = next((size for size in self.buckets if size >= longest), 0)
            if not bucket:
                ((_, a, b),) = super().descriptors([reference], [query])
            else:
                tokens = torch.zeros(2, 1, bucket, self.width, device=self.device)
                tokens[0, 0, : len(reference)] = reference
                tokens[1, 0, : len(query)] = query
                counts = torch.tensor([[len(reference)], [len(query)]], device=self.device)
                # A graph's outputs are overwritten by its next replay.
                a, b = (found.clone() for found in self._compiled(tokens, counts))
                a, b = a[:, : len(reference)], b[:, : len(query)]
            yield k, a, b


class CompiledSuperPointEngine(SuperPointEngine):
    """:class:`SuperPointEngine` as one compiled graph per image size.

    That of ``size`` (height, width) is recorded at once, any other at its first image. Raises
    :class:`ConfigError` where torch cannot compile here.
    """

    def __init__(
        self,
        network: SuperPoint,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
        size: tuple[int, int] = (480, 640),
    ) -> None:
        super().__init__(network, device, dtype, tf32)
        self._compiled = _compile(self.dense_maps, device)
        image = torch.zeros(1, 1, *size)
        _record(f"SuperPoint, {size[1]}x{size[0]}", lambda: self.maps(image))

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`SuperPointEngine.maps`."""
        probability, descriptors = self._compiled(images.to(self._device, self.dtype))
        return probability.clone(), descriptors.clone()

    def _apply(self, x: Tensor, block: Block, pooled: Buffers) -> Tensor:
        return block(x)  # strips are for eager mode: the compiler fuses these operations


def _compile(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    # reduce-overhead replays CUDA graphs; without a GPU it is the default mode.
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: Callable[..., Any] = torch.compile(function, mode=mode, dynamic=False)
    return compiled


def _record(name: str, run: Callable[[], object]) -> None:
    """Compile by running: the third run is the first that replays a CUDA graph."""
    started = time.monotonic()
    try:
        for _ in range(3):
            run()
    except Exception as error:  # the compiler's exceptions have no common base
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{name} cannot be compiled here ({reason}): install a C++ compiler, or set backend to "
            f"torch"
        ) from error
    log.info("%s: compiled in %.1f s", name, time.monotonic() - started)
