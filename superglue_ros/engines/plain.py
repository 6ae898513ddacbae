"""The network as it stands, behind the interface of the optimised engine: for every option."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from superglue_ros.engines.mutual import MutualMatches
from superglue_ros.engines.superglue import SuperGlueEngine, inference_matching
from superglue_ros.networks.device import tensor_float
from superglue_ros.networks.sinkhorn import sinkhorn
from superglue_ros.networks.superglue import SuperGlue


@dataclass(frozen=True, eq=False)
class PreparedNodes:
    """A set after the layers that need nothing of the other: ``x`` (N, D), positions (N, 2)."""

    x: Tensor
    xy: Tensor | None

    def __len__(self) -> int:
        return len(self.x)


class PlainSuperGlueEngine(MutualMatches):
    """Inference of a network with any option, pair by pair.

    ``dtype``, and for float32 ``tf32``, is that of the layers' products and attention; residual
    stream, final scores and optimal transport are float32 always.
    """

    def __init__(
        self,
        network: SuperGlue,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
    ) -> None:
        self.device, self.dtype, self.tf32 = device, dtype, tf32
        self._network = copy.deepcopy(network).float().to(device).eval().requires_grad_(False)
        self._matching = inference_matching(network, device)
        crossings = [i for i in range(len(network.gnn)) if network.is_cross(i)]
        self._shared = crossings[0] if crossings else len(network.gnn)

    @torch.inference_mode()
    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: tuple[int, int]
    ) -> PreparedNodes:
        """See :meth:`SuperGlueEngine.prepare`."""
        network = self._network
        extent = torch.tensor([size], device=self.device)
        points = keypoints.to(self.device)[None]
        x = network.encode(
            points, scores.to(self.device)[None], descriptors.to(self.device)[None], extent
        )
        xy = network.positions(points, extent)
        if len(keypoints):
            with self._precision():
                for layer in list(network.gnn)[: self._shared]:
                    x = layer(x, cross=False, xy=xy).float()
        return PreparedNodes(x[0].float(), None if xy is None else xy[0])

    @torch.inference_mode()
    def match_pairs(
        self,
        references: Sequence[PreparedNodes],
        queries: Sequence[PreparedNodes],
        iterations: int = 100,
    ) -> Iterator[tuple[int, Tensor]]:
        """See :meth:`SuperGlueEngine.match_pairs`."""
        for k, (reference, query) in enumerate(zip(references, queries, strict=True)):
            padded = len(reference) != len(query)
            mask0, mask1 = (self._mask(one) if padded else None for one in (reference, query))
            xy0, xy1 = (None if one.xy is None else one.xy[None] for one in (reference, query))
            x0, x1 = reference.x[None], query.x[None]
            with self._precision():
                found = self._network.propagate(x0, x1, mask0, mask1, xy0, xy1, self._shared)
            found = found.float() / self._network.temperature**0.5
            a, b = found[:1, : len(reference)], found[1:, : len(query)]
            yield k, self._matching.assign(a, b, iterations, sinkhorn)

    def _mask(self, nodes: PreparedNodes) -> Tensor:
        return torch.ones(1, len(nodes), dtype=torch.bool, device=self.device)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        low = self.dtype != torch.float32
        with (
            tensor_float(self.device, self.tf32),
            torch.autocast(self.device.type, self.dtype, enabled=low),
        ):
            yield


def torch_engine(
    network: SuperGlue,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    tf32: bool = False,
) -> SuperGlueEngine | PlainSuperGlueEngine:
    """The fastest engine in PyTorch that has all of the network's options."""
    if network.config.reads_pairs:
        return PlainSuperGlueEngine(network, device, dtype, tf32)
    return SuperGlueEngine(network, device, dtype, tf32)
