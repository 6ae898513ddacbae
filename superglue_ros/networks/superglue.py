"""SuperGlue: keypoint encoder, attentional graph neural network, score matrix (eq. 2-7).

One network for a batch of pairs. Sets of unequal size are padded and masked; a padded batch gives
the same results as its pairs one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.networks.sinkhorn import log_sinkhorn


@dataclass(frozen=True)
class SuperGlueConfig:
    """Architecture, with the ablations of the paper's table 4 as switches.

    ``descriptor_dim`` of the input; ``width`` D of every layer; ``layers`` L, each a self- and a
    cross-attention. ``graph=False`` is "No Graph Neural Net", ``cross_attention=False`` replaces
    cross- by self-attention, ``keypoint_encoder=()`` is "No positional encoding".
    """

    descriptor_dim: int = 256
    width: int = 256
    layers: int = 9
    heads: int = 4
    keypoint_encoder: tuple[int, ...] = (32, 64, 128, 256)
    graph: bool = True
    cross_attention: bool = True


class _TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over tokens (..., C), channels last; in training padded tokens do not count."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return super().forward(x.flatten(0, -2)).view_as(x)
        out = torch.zeros_like(x)
        out[mask] = super().forward(x[mask]).to(x.dtype)
        return out

    def fold(self, linear: nn.Linear) -> tuple[Tensor, Tensor]:
        """Weight and bias of ``linear`` followed by this batch norm with fixed statistics."""
        assert self.running_var is not None
        assert self.running_mean is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = (linear.bias - self.running_mean) * scale + self.bias
        return linear.weight * scale.unsqueeze(1), bias


class _MLP(nn.ModuleList):
    """Linear layers with batch norm and ReLU between them, on tokens (B, N, C)."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        for i in range(1, len(channels)):
            self.append(nn.Linear(channels[i - 1], channels[i]))
            if i + 1 < len(channels):
                self.append(_TokenBatchNorm(channels[i]))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        layers: list[Any] = list(self)
        for linear, norm in zip_longest(layers[::2], layers[1::2]):
            if norm is None:
                x = linear(x)
            elif norm.training or not torch.is_grad_enabled():
                x = F.relu(norm(linear(x), mask))
            else:  # fixed statistics in training: two passes over the tokens less, each way
                x = F.relu(F.linear(x, *norm.fold(linear)))
        return x


class AttentionalPropagation(nn.Module):
    """One residual message passing update (eq. 3-5) with multi-head attention.

    Heads are contiguous channels: head h is channels h D/H to (h+1) D/H of query, key and value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = _MLP(2 * width, 2 * width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) to query, key and value (B, H, N, D/H) (eq. 5)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, cross: bool, mask: Tensor | None = None) -> Tensor:
        """Update (2P, N, D): the P images A, then the P images B; ``mask`` (2P, N) True = token."""
        q, k, v = self.project(x)
        key_mask = mask
        if cross:
            k, v = _swap(k), _swap(v)
            key_mask = None if mask is None else _swap(mask)
        attention_mask = None if key_mask is None else key_mask[:, None, None, :]
        message = _attend(q, k, v, attention_mask)
        message = self.merge(message.transpose(1, 2).flatten(2))
        return x + self.mlp(torch.cat([x, message], dim=-1), mask)


class SuperGlue(nn.Module):
    """Features of two images to the log assignment between them."""

    def __init__(self, config: SuperGlueConfig = SuperGlueConfig()) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.input = (
            nn.Identity()
            if config.descriptor_dim == width
            else nn.Linear(config.descriptor_dim, width)
        )
        self.encoder = _MLP(3, *config.keypoint_encoder, width) if config.keypoint_encoder else None
        layers = 2 * config.layers if config.graph else 0
        self.gnn = nn.ModuleList(AttentionalPropagation(width, config.heads) for _ in range(layers))
        self.final = nn.Linear(width, width)
        self.dustbin = nn.Parameter(torch.tensor(1.0))

    def encode(
        self,
        keypoints: Tensor,
        scores: Tensor,
        descriptors: Tensor,
        size: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Initial representations (eq. 2): (B, N, D).

        ``keypoints`` (B, N, 2) pixels, ``scores`` (B, N), ``descriptors`` (B, N, descriptor_dim),
        ``size`` (B, 2) image width and height in pixels.
        """
        x = self.input(descriptors)
        if self.encoder is None:
            return x
        tokens = torch.cat([normalise_keypoints(keypoints, size), scores.unsqueeze(-1)], dim=-1)
        return x + self.encoder(tokens, mask)

    def propagate(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None
    ) -> Tensor:
        """The graph network and final projection (eq. 3-6): (2P, max(M, N), D), A before B.

        The masks may be None where both sets have the same length and no padding.
        """
        length = max(x0.shape[1], x1.shape[1])
        x = torch.cat([_pad(x0, length), _pad(x1, length)])
        mask: Tensor | None = None
        if mask0 is not None and mask1 is not None:
            mask = torch.cat([_pad(mask0, length), _pad(mask1, length)])
            if bool(mask.all()):
                mask = None
        for i, layer in enumerate(self.gnn):
            x = layer(x, cross=self.config.cross_attention and i % 2 == 1, mask=mask)
        return self.final(x)

    def score_matrix(self, x0: Tensor, x1: Tensor, mask0: Tensor, mask1: Tensor) -> Tensor:
        """Scores (P, M, N) of eq. 7, divided by sqrt(D)."""
        f0, f1 = self.propagate(x0, x1, mask0, mask1).chunk(2)
        f0, f1 = f0[:, : x0.shape[1]], f1[:, : x1.shape[1]]
        return f0 @ f1.transpose(1, 2) / self.config.width**0.5

    def assignment(
        self, x0: Tensor, x1: Tensor, mask0: Tensor, mask1: Tensor, iterations: int = 100
    ) -> Tensor:
        """Encoded sets (P, M, D), (P, N, D) to the log assignment (P, M+1, N+1) of eq. 9."""
        scores = self.score_matrix(x0, x1, mask0, mask1)
        return log_sinkhorn(scores.float(), self.dustbin, iterations, mask0, mask1)

    def forward(
        self,
        keypoints0: Tensor,
        scores0: Tensor,
        descriptors0: Tensor,
        size0: Tensor,
        keypoints1: Tensor,
        scores1: Tensor,
        descriptors1: Tensor,
        size1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        iterations: int = 100,
    ) -> Tensor:
        """Log assignment (P, M+1, N+1) of P pairs (eq. 9), -inf where there is padding.

        Shapes as in :meth:`encode`, A with M and B with N tokens; ``mask0`` (P, M), ``mask1``
        (P, N) bool, True = a keypoint, None = no padding.
        """
        if mask0 is None:
            mask0 = torch.ones_like(scores0, dtype=torch.bool)
        if mask1 is None:
            mask1 = torch.ones_like(scores1, dtype=torch.bool)
        x0 = self.encode(keypoints0, scores0, descriptors0, size0, mask0)
        x1 = self.encode(keypoints1, scores1, descriptors1, size1, mask1)
        return self.assignment(x0, x1, mask0, mask1, iterations)


def normalise_keypoints(keypoints: Tensor, size: Tensor) -> Tensor:
    """Pixels (B, N, 2) centred on the image and divided by 0.7 times its larger side.

    The paper divides by the largest dimension (appendix E); the factor 0.7 is that of the published
    checkpoints. ``size`` (B, 2): width, height.
    """
    size = size.to(keypoints.dtype)
    scale = 0.7 * size.amax(dim=1, keepdim=True)
    return (keypoints - size.unsqueeze(1) / 2) / scale.unsqueeze(1)


def initialise_as_optimal_matching(network: SuperGlue, scale: float = 10.0) -> None:
    """Make the network equal to the optimal-matching layer on the raw descriptors.

    Messages and positional encoding are zero and the final projection is a scaled identity, so a
    pair scores ``scale`` times the cosine of its unit-length descriptors. Training starts at
    the quality of nearest neighbours, and the node works untrained. Needs ``descriptor_dim`` =
    ``width``, or an input projection that keeps angles.
    """
    gain = (scale * network.config.width**0.5) ** 0.5
    with torch.no_grad():
        outputs = [
            layer.mlp[-1] for layer in network.gnn if isinstance(layer, AttentionalPropagation)
        ]
        if network.encoder is not None:
            outputs.append(network.encoder[-1])
        for linear in outputs:
            nn.init.zeros_(linear.weight)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
        network.final.weight.copy_(gain * torch.eye(network.config.width))
        nn.init.zeros_(network.final.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; ``mask`` True = a key to attend to."""
    if not (q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # Training in bfloat16 on a CPU: torch's fused backward pass takes three times as long as this.
    with torch.autocast("cpu", enabled=False):
        similarity = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            similarity = similarity.masked_fill(~mask, -torch.inf)
        return similarity.softmax(dim=-1) @ v


def _swap(x: Tensor) -> Tensor:
    """Exchange the images A and B of every pair: (2P, ...) to (2P, ...)."""
    a, b = x.chunk(2)
    return torch.cat([b, a])


def _pad(x: Tensor, length: int) -> Tensor:
    """Pad dimension 1 of (B, N, ...) with zeros (False) to ``length``."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)
