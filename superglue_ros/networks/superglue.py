"""SuperGlue: keypoint encoder, attentional graph neural network, score matrix (eq. 2-7).

One network for a batch of pairs. Sets of unequal size are padded and masked; a padded batch gives
the same results as its pairs one by one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.networks.aggregation import make_aggregation
from superglue_ros.networks.matching import (
    IterationPredictor,
    Matching,
    UncertaintyHead,
    each_pair_alone,
)
from superglue_ros.networks.nodes import Nodes, swap
from superglue_ros.networks.position_encoding import (
    encoder_inputs,
    normalise_keypoints,
    position_features,
)
from superglue_ros.networks.sinkhorn import log_sinkhorn
from superglue_ros.networks.superglue_config import SuperGlueConfig as SuperGlueConfig


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
    """One residual message passing update (eq. 3-5) with multi-head attention or an option of it.

    Heads are contiguous channels: head h is channels h D/H to (h+1) D/H of query, key and value.
    """

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(len(config.scales) * width, width)
        self.mlp = _MLP(2 * width, 2 * width, width)
        self.aggregation = make_aggregation(config)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) to query, key and value (B, H, N, D/H) (eq. 5)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(
        self, x: Tensor, cross: bool, mask: Tensor | None = None, xy: Tensor | None = None
    ) -> Tensor:
        """Update (2P, N, D): the P images A, then the P images B.

        ``mask`` (2P, N) True = token; ``xy`` (2P, N, 2) normalised positions, for the options that
        read them.
        """
        q, k, v = self.project(x)
        to = source = Nodes(x, xy, mask)
        if cross:
            k, v, source = swap(k), swap(v), to.swapped()
        message = self.aggregation(q, k, v, to, source)
        message = self.merge(message.transpose(1, 2).flatten(2))
        return x + self.mlp(torch.cat([x, message], dim=-1), mask)


class SuperGlue(nn.Module):
    """Features of two images to the log assignment between them."""

    def __init__(self, config: SuperGlueConfig | None = None) -> None:
        super().__init__()
        config = config or SuperGlueConfig()
        self.config = config
        width = config.width
        self.input = (
            nn.Identity()
            if config.descriptor_dim == width
            else nn.Linear(config.descriptor_dim, width)
        )
        inputs = encoder_inputs(config.sinusoids)
        self.encoder = (
            _MLP(inputs, *config.keypoint_encoder, width) if config.keypoint_encoder else None
        )
        layers = 2 * config.layers if config.graph else 0
        self.gnn = nn.ModuleList(AttentionalPropagation(config) for _ in range(layers))
        self.final = nn.Linear(width, width)
        start = [1.0, 1.0] if config.separate_dustbins else 1.0
        self.dustbin = nn.Parameter(torch.tensor(start))
        self.log_temperature = (
            nn.Parameter(torch.tensor(math.log(config.temperature))) if config.temperature else None
        )
        self.stop = (
            IterationPredictor(width, config.learned_iterations)
            if config.learned_iterations
            else None
        )
        self.doubt = UncertaintyHead(width) if config.uncertainty else None

    @property
    def temperature(self) -> float | Tensor:
        """What scores are divided by: sqrt(D), or the learned tau (technical report)."""
        if self.log_temperature is None:
            return float(self.config.width**0.5)
        return self.log_temperature.exp()

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
        xy = normalise_keypoints(keypoints, size)
        return x + self.encoder(position_features(xy, scores, self.config.sinusoids), mask)

    def positions(self, keypoints: Tensor, size: Tensor) -> Tensor | None:
        """Normalised positions (B, N, 2), None where the graph network does not read them."""
        return normalise_keypoints(keypoints, size) if self.config.needs_positions else None

    def propagate(
        self,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        xy0: Tensor | None = None,
        xy1: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """The graph network and final projection (eq. 3-6): (2P, max(M, N), D), A before B.

        The masks may be None where both sets have the same length and no padding. ``xy0``, ``xy1``:
        :meth:`positions`; ``first``: the layer to begin with.
        """
        length = max(x0.shape[1], x1.shape[1])
        x = torch.cat([_pad(x0, length), _pad(x1, length)])
        mask: Tensor | None = None
        if mask0 is not None and mask1 is not None:
            mask = torch.cat([_pad(mask0, length), _pad(mask1, length)])
            if bool(mask.all()):
                mask = None
        xy: Tensor | None = None
        if self.config.needs_positions:
            if xy0 is None or xy1 is None:
                raise ValueError("this network's messages need positions: give xy0 and xy1")
            xy = torch.cat([_pad(xy0, length), _pad(xy1, length)])
        for i, layer in enumerate(self.gnn):
            if i >= first:
                x = layer(x, cross=self.is_cross(i), mask=mask, xy=xy)
        return self.final(x)

    def is_cross(self, layer: int) -> bool:
        """Whether messages of a layer come from the other image."""
        return self.config.cross_attention and layer % 2 == 1

    def score_matrix(
        self,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        xy0: Tensor | None = None,
        xy1: Tensor | None = None,
    ) -> Tensor:
        """Scores (P, M, N) of eq. 7, divided by the temperature."""
        f0, f1 = self.propagate(x0, x1, mask0, mask1, xy0, xy1).chunk(2)
        f0, f1 = f0[:, : x0.shape[1]], f1[:, : x1.shape[1]]
        return f0 @ f1.transpose(1, 2) / self.temperature

    def assignment(
        self,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor,
        mask1: Tensor,
        iterations: int = 100,
        xy0: Tensor | None = None,
        xy1: Tensor | None = None,
    ) -> Tensor:
        """Encoded sets (P, M, D), (P, N, D) to the log assignment (P, M+1, N+1) of eq. 9.

        With all that evaluation adds to it: the learned number of iterations, clusters, and doubt.
        """
        f0, f1 = self.propagate(x0, x1, mask0, mask1, xy0, xy1).chunk(2)
        f0, f1 = f0[:, : x0.shape[1]], f1[:, : x1.shape[1]]
        matching = self.matching()
        if matching.plain:
            scores = f0 @ f1.transpose(1, 2) / self.temperature
            return log_sinkhorn(scores.float(), self.dustbin, iterations, mask0, mask1)
        root = self.temperature**0.5
        f0, f1 = f0.float() / root, f1.float() / root
        return each_pair_alone(matching, f0, f1, mask0, mask1, iterations, log_sinkhorn)

    def matching(self) -> Matching:
        """The optimal matching layer as evaluation uses it."""
        return Matching(self.dustbin, self.stop, self.doubt, self.config.hierarchy)

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
        xy0, xy1 = self.positions(keypoints0, size0), self.positions(keypoints1, size1)
        return self.assignment(x0, x1, mask0, mask1, iterations, xy0, xy1)


def with_options(network: SuperGlue, **options: Any) -> SuperGlue:
    """The network in evaluation mode with options changed that have no parameters."""
    made = SuperGlue(replace(network.config, **options)).eval()
    made.load_state_dict(network.state_dict())
    return made.requires_grad_(False)


def initialise_as_optimal_matching(network: SuperGlue, scale: float = 10.0) -> None:
    """Make the network equal to the optimal-matching layer on the raw descriptors.

    Messages and positional encoding are zero and the final projection is a scaled identity, so a
    pair scores ``scale`` times the cosine of its unit-length descriptors. Training starts at
    the quality of nearest neighbours, and the node works untrained. Needs ``descriptor_dim`` =
    ``width``, or an input projection that keeps angles.
    """
    gain = (scale * float(network.temperature)) ** 0.5
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


def _pad(x: Tensor, length: int) -> Tensor:
    """Pad dimension 1 of (B, N, ...) with zeros (False) to ``length``."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)
