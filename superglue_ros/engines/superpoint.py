"""SuperPoint optimised for inference: the same maps as ``networks/superpoint.py``, in less time.

Batch norm after ReLU, y = s r + t, is folded into the next convolution: s into its weights, t into
its bias. Zero padding pads y, not r, so at the image border the taps outside the image would add a
t that is not there: it is subtracted from the border rows and columns. Maximum
pooling lies between: it commutes with s r + t only where s is positive, else the batch norm stays.

On a CPU the first blocks are bound by the memory traffic of their full-size maps
(79 MB each at 640x480). There a block runs in strips of rows that stay in the cache, each with the
neighbouring rows it needs: more arithmetic by a few per cent, and the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.networks.device import tensor_float
from superglue_ros.networks.superpoint import (
    SuperPoint,
    add_context,
    half_size,
    keypoint_probability,
    unit_length,
)

STRIP_BYTES = 2**22
"""Size of a strip's map, which shares the cores' L2 caches with weights and output."""


@dataclass(frozen=True, eq=False)
class _Conv:
    """Convolution with folded bias; ``border`` None = no border correction."""

    weight: Tensor
    bias: Tensor
    border: _Border | None


@dataclass(frozen=True, eq=False)
class _Border:
    """What the taps outside the image would add: to the first and last row and column (C, 1), and
    ``corners`` (2, 2, C), which a row and a column both take off.
    """

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor
    corners: Tensor

    def remove(self, x: Tensor, first: bool = True, last: bool = True) -> None:
        """Correct (B, C, H, W) in place; a strip has the image's ``first`` row, ``last`` row."""
        x[..., 0] -= self.left
        x[..., -1] -= self.right
        for there, row, values, corner in (
            (first, 0, self.top, self.corners[0]),
            (last, -1, self.bottom, self.corners[1]),
        ):
            if there:
                x[..., row, :] -= values
                x[..., row, 0] += corner[0]
                x[..., row, -1] += corner[1]


@dataclass(frozen=True, eq=False)
class Block:
    """Two 3x3 convolutions with ReLU, batch norm that could not be folded, 2x2 pooling."""

    a: _Conv
    b: _Conv
    norm: tuple[Tensor, Tensor] | None
    pool: bool

    def __call__(self, x: Tensor) -> Tensor:
        """The whole map."""
        return self._end(_convolve(_convolve(x, self.a).relu_(), self.b))

    def strip(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The output of rows ``start`` to ``stop``, computed from two more rows on each side."""
        height = x.shape[2]
        edges = (start == 0, stop == height)
        rows = x[:, :, max(start - 2, 0) : min(stop + 2, height)]
        middle = _convolve_rows(rows, self.a, edges).relu_()
        return self._end(_convolve_rows(middle, self.b, edges))

    def _end(self, x: Tensor) -> Tensor:
        x = x.relu_()
        if self.norm is not None:
            x = x.mul_(self.norm[0]).add_(self.norm[1])
        return F.max_pool2d(x, 2, 2) if self.pool else x


Buffers = dict[Block, Tensor]
"""Pooled maps of blocks, kept from image to image while their size stays."""


class SuperPointEngine:
    """Fast inference of one trained network; float32, with or without TF32, or lower ``dtype``."""

    def __init__(
        self,
        network: SuperPoint,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
    ) -> None:
        self._device, self.dtype, self.tf32 = device, dtype, tf32
        self.config = network.config
        self._pooled: Buffers = {}
        self._pooled_around: Buffers = {}
        with torch.no_grad():
            backbone: Any = network.backbone
            blocks = [(block[0], block[1]) for block in backbone]
            offset: tuple[Tensor, Tensor] | None = None
            self._blocks: list[Block] = []
            for first, second in blocks:
                a, offset = self._fold(first, offset)
                b, offset = self._fold(second, offset)
                norm = None
                if offset is not None and bool((offset[0] < 0).any()):
                    norm, offset = self._per_channel(offset), None
                self._blocks.append(Block(a, b, norm, pool=len(self._blocks) + 1 < len(blocks)))
            heads: list[tuple[_Conv, _Conv]] = []
            for first, last in (network.detector, network.descriptor):
                hidden, inner = self._fold(first, offset)
                heads.append((hidden, self._fold(last, inner)[0]))
            self._detector, self._descriptor = heads

    def _fold(
        self, block: Any, offset: tuple[Tensor, Tensor] | None
    ) -> tuple[_Conv, tuple[Tensor, Tensor] | None]:
        """A block's convolution on r, where its input is y = s r + t, and its own (s, t)."""
        weight = block.conv.weight.detach().double().cpu()
        bias = block.conv.bias.detach().double().cpu()
        border = None
        if offset is not None:
            scale, shift = offset
            taps = torch.einsum("oiyx,i->oyx", weight, shift)
            bias = bias + taps.sum(dim=(1, 2))
            if taps.shape[1] > 1:
                border = self._border(taps)
            weight = weight * scale[:, None, None]
        own = _batch_norm(block)
        if own is not None and not hasattr(block, "relu"):
            scale, shift = own
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
            own = None
        folded = _Conv(
            weight.to(self._device, self.dtype, memory_format=torch.channels_last),
            bias.to(self._device, self.dtype),
            border,
        )
        return folded, own

    def _per_channel(self, values: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        scale, shift = (x[:, None, None].to(self._device, self.dtype) for x in values)
        return scale, shift

    def _border(self, taps: Tensor) -> _Border:
        def put(x: Tensor) -> Tensor:
            return x.to(self._device, self.dtype)

        return _Border(
            top=put(taps[:, 0].sum(1)[:, None]),
            bottom=put(taps[:, -1].sum(1)[:, None]),
            left=put(taps[:, :, 0].sum(1)[:, None]),
            right=put(taps[:, :, -1].sum(1)[:, None]),
            corners=put(taps[:, [0, -1]][:, :, [0, -1]].permute(1, 2, 0)),
        )

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoint probability (B, H, W) and unit-length descriptors (B, D, H/8, W/8), float32.

        ``images`` (B, 1, H, W) in [0, 1], H and W multiples of 8. The maps are the caller's own.
        """
        return self.dense_maps(images.to(self._device, self.dtype))

    def dense_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`maps`, for images that are on the device in the engine's precision."""
        with tensor_float(self._device, self.tf32):
            features = self._backbone(x, self._pooled)
            probability = keypoint_probability(_head(features, self._detector).float())
            descriptors = unit_length(_head(features, self._descriptor))
            if self.config.context:
                wide = self._backbone(half_size(x), self._pooled_around)
                around = _head(wide, self._descriptor)
                descriptors = add_context(descriptors, unit_length(around), self.config.context)
        return probability, descriptors

    def _backbone(self, x: Tensor, pooled: Buffers) -> Tensor:
        for block in self._blocks:
            x = self._apply(x, block, pooled)
        return x

    def _apply(self, x: Tensor, block: Block, pooled: Buffers) -> Tensor:
        height, width = x.shape[2:]
        channels = len(block.b.weight)
        rows = max(8, STRIP_BYTES // (channels * width * x.element_size()) // 2 * 2)
        if not block.pool or x.is_cuda or rows >= height:
            return block(x)
        shape = (len(x), channels, height // 2, width // 2)
        if block not in pooled or pooled[block].shape != shape:
            empty = torch.empty(shape, dtype=x.dtype, device=x.device)
            pooled[block] = empty.contiguous(memory_format=torch.channels_last)
        for image, result in zip(x.split(1), pooled[block].split(1), strict=True):
            for start in range(0, height - 1, rows):
                # An odd last row is no strip of its own: it is dropped by the pooling.
                stop = start + rows if start + rows + 1 < height else height
                result[:, :, start // 2 : stop // 2] = block.strip(image, start, stop)
        return pooled[block]


def _head(features: Tensor, layers: tuple[_Conv, _Conv]) -> Tensor:
    hidden, last = layers
    return _convolve(_convolve(features, hidden).relu_(), last)


def _convolve(x: Tensor, conv: _Conv) -> Tensor:
    """Zero-padded convolution."""
    y = F.conv2d(x, conv.weight, conv.bias, padding=conv.weight.shape[2] // 2)
    if conv.border is not None:
        conv.border.remove(y)
    return y


def _convolve_rows(x: Tensor, conv: _Conv, edges: tuple[bool, bool]) -> Tensor:
    """3x3 convolution of a strip, padded by zero rows only where the image ends: first, last."""
    first, last = edges
    if first or last:
        x = F.pad(x, (0, 0, int(first), int(last)))
    y = F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))
    if conv.border is not None:
        conv.border.remove(y, first, last)
    return y


def _batch_norm(block: Any) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (float64) of a block's batch norm in evaluation, None where it has none."""
    norm = getattr(block, "bn", None)
    if norm is None:
        return None
    scale = norm.weight.double().cpu() / (norm.running_var.double().cpu() + norm.eps).sqrt()
    return scale, norm.bias.double().cpu() - scale * norm.running_mean.double().cpu()
