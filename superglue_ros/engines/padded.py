"""SuperGlue for batches of fixed shape: what a CUDA graph records, and what torch compiles.

Sets are padded to one size; padding is masked out of attention and optimal transport. The layers
are those of :class:`~superglue_ros.engines.superglue.SuperGlueEngine`, folded as there. No function
here waits for the device, copies to it, or has a shape that depends on values.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.engines.mutual import mutual_best
from superglue_ros.engines.superglue import Layer, SuperGlueEngine
from superglue_ros.networks.device import tensor_float
from superglue_ros.networks.sinkhorn import fixed_sinkhorn

OPTIONS = ("sinusoids", "temperature", "separate_dustbins")
"""Options of a network that act outside of its layers and ask nothing of values."""

SMALLEST = 128


def sizes_up_to(max_keypoints: int) -> tuple[int, ...]:
    """Sizes that sets are padded to: doubling from 128, and the maximum itself."""
    sizes = [SMALLEST]
    while 2 * sizes[-1] < max_keypoints:
        sizes.append(2 * sizes[-1])
    return (*sizes, max_keypoints) if max_keypoints > SMALLEST else (SMALLEST,)


class PaddedSuperGlue:
    """The layers of ``engine`` on batches (2, P, N, D): the references, then the queries.

    ``counts`` (2, P) int64: keypoints of every set, the rest is padding; None = all N. No set is
    empty.
    """

    def __init__(self, engine: SuperGlueEngine) -> None:
        self._engine = engine
        self._solve = transport_of(engine.device)

    def prepare(
        self, keypoints: Tensor, scores: Tensor, descriptors: Tensor, size: Tensor, count: Tensor
    ) -> Tensor:
        """As :meth:`SuperGlueEngine.prepare`: tokens (N, D) of a set of ``count`` (1, 1) int64.

        ``keypoints`` (N, 2), ``scores`` (N,), ``descriptors`` (N, descriptor_dim), finite in the
        padding too; ``size`` (1, 2) float32 width and height.
        """
        engine = self._engine
        x = engine.encode(keypoints, scores, descriptors, size)[None]
        bias = self._bias(x, count)
        with tensor_float(engine.device, engine.tf32):
            for layer in engine.layers[: engine.shared]:
                self._update(layer, x, bias)
        return x[0]

    def match(self, tokens: Tensor, counts: Tensor | None, iterations: int) -> tuple[Tensor, ...]:
        """Log assignment (P, N+1, N+1), dustbins last, -inf where there is padding.

        And the partners of the references: index (P, N) and probability (P, N) of
        :func:`mutual_best`.
        """
        a, b = self.descriptors(tokens, counts)
        log_assignment = self.transport(a @ b.transpose(1, 2), counts, iterations)
        return (log_assignment, *mutual_best(log_assignment))

    def descriptors(self, tokens: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        """As :meth:`SuperGlueEngine.descriptors`: (P, N, D) of the references and the queries."""
        engine = self._engine
        x = tokens.flatten(0, 1).clone()
        bias = self._bias(x, counts)
        with tensor_float(engine.device, engine.tf32):
            for layer in engine.layers[engine.shared :]:
                self._update(layer, x, bias)
        a, b = engine.project(x.flatten(0, 1)).unflatten(0, (2, len(x) // 2, x.shape[1]))
        return a, b

    def transport(self, scores: Tensor, counts: Tensor | None, iterations: int) -> Tensor:
        """Optimal transport of ``scores`` (P, N, N), whatever it takes: see eq. 9."""
        if counts is None:
            mask0 = mask1 = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
        else:
            mask0, mask1 = _mask(counts, scores.shape[1])
        dustbin = self._engine.matching.dustbin
        return self._solve(scores, dustbin, iterations, mask0, mask1)

    def _bias(self, x: Tensor, counts: Tensor | None) -> Tensor | None:
        """What attention adds to its logits (B, 1, 1, N): minus infinity for padding."""
        if counts is None:
            return None
        mask = _mask(counts, x.shape[1]).flatten(0, 1)
        bias = torch.zeros(mask.shape, dtype=self._engine.dtype, device=x.device)
        return bias.masked_fill_(~mask, -torch.inf)[:, None, None]

    def _update(self, layer: Layer, x: Tensor, bias: Tensor | None) -> None:
        """One attentional propagation (eq. 3-5) of the tokens (B, N, D), in place."""
        engine, d = self._engine, self._engine.width
        flat = x.flatten(0, 1)
        projected = torch.addmm(layer.bias, flat.to(engine.dtype), layer.project)
        queries, pairs, hidden = projected.split([d, 2 * d, 2 * d], dim=1)
        if layer.cross:
            pairs = pairs.unflatten(0, (2, -1)).flip(0).flatten(0, 1)
            bias = None if bias is None else bias.unflatten(0, (2, -1)).flip(0).flatten(0, 1)

        def heads(part: Tensor) -> Tensor:
            return part.unflatten(1, (layer.heads, -1)).unflatten(0, x.shape[:2]).transpose(1, 2)

        keys, values = pairs.split(d, dim=1)
        message = F.scaled_dot_product_attention(
            heads(queries), heads(keys), heads(values), attn_mask=bias
        )
        hidden.addmm_(message.transpose(1, 2).reshape(-1, d), layer.message).relu_()
        if engine.dtype == x.dtype:
            flat.addmm_(hidden, layer.update)
        else:
            flat.add_(hidden @ layer.update)


def transport_of(device: torch.device) -> Callable[..., Tensor]:
    """Optimal transport as a fixed sequence of launches, with the arguments of
    :func:`fixed_sinkhorn`: fused by Triton on a GPU where that works.
    """
    if device.type == "cuda" and find_spec("triton") is not None:
        from superglue_ros.engines.fused_sinkhorn import fused_sinkhorn, works_on

        if works_on(device):
            return fused_sinkhorn
    return fixed_sinkhorn


def _mask(counts: Tensor, size: int) -> Tensor:
    """Which of ``size`` tokens are keypoints: (2, P, size) for counts (2, P)."""
    return torch.arange(size, device=counts.device) < counts.unsqueeze(-1)
