"""Learned filters of matches: PointCN and OANet.

PointCN (Yi et al., "Learning to Find Good Correspondences", CVPR 2018) reads the coordinates of all
matches of a pair and says for each how likely it is right: perceptrons shared by the matches, which
see one another through the mean and variance of every channel (context normalisation). OANet (Zhang
et al., "Learning Two-View Correspondences and Geometry Using Order-Aware Network", ICCV 2019) adds
soft clusters of matches, perceptrons across the clusters, and a second stage that reads the first
one's weights and how well each match fits the model that they give.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from superglue_ros.errors import ConfigError
from superglue_ros.networks.model_fits import epipolar_distance, weighted_fundamental

_FAR = 0.1
"""Distance from the epipolar line, in coordinates of the order of one, beyond which far is far."""


@dataclass(frozen=True)
class MatchFilterConfig:
    """Architecture. ``clusters`` 0 is PointCN, more OANet.

    ``blocks``: residual blocks of a stage; with clusters half of them before the clusters and half
    after, and ``cluster_blocks`` on the clusters. Raises :class:`ConfigError` on what has no layer.
    """

    width: int = 128
    blocks: int = 12
    clusters: int = 0
    cluster_blocks: int = 3
    stages: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.stages) < 1 or (self.clusters and self.blocks < 2):
            raise ConfigError("a filter of matches needs width, stages and blocks (OANet: 2)")


class MatchFilter(nn.Module):
    """PointCN or OANet; see the module."""

    def __init__(self, config: MatchFilterConfig | None = None) -> None:
        super().__init__()
        self.config = config or MatchFilterConfig()
        self.parts = nn.ModuleList(
            _Stage(4 if index == 0 else 6, self.config) for index in range(self.config.stages)
        )

    def forward(self, matches: Tensor) -> Tensor:
        """Log odds (P, stages, N) that matches (P, N, 4) are right; the last stage's count.

        ``matches``: x y of image 0 and x y of image 1, see :func:`normalised_matches`; all N are
        matches, there is no padding.
        """
        found = []
        x = matches.mT
        for index, part in enumerate(self.parts):
            logits = part(x)
            found.append(logits)
            if index + 1 < len(self.parts):
                weights = match_weights(logits.detach())
                model = weighted_fundamental(matches, weights)
                off = epipolar_distance(matches, model).clamp(max=_FAR) / _FAR
                x = torch.cat([matches.mT, weights[:, None], off.to(weights.dtype)[:, None]], 1)
        return torch.stack(found, 1)


def match_weights(logits: Tensor) -> Tensor:
    """Weights of matches in the model: tanh of the log odds, 0 where they are negative."""
    return torch.relu(torch.tanh(logits))


def normalised_matches(points0: Tensor, points1: Tensor, size0: Tensor, size1: Tensor) -> Tensor:
    """Matches (..., N, 4) of pixels (..., N, 2): centred, half the larger side of an image is 1.

    ``size0``, ``size1`` (..., 2): width and height.
    """
    return torch.cat(
        [
            (points - (size[..., None, :] - 1) / 2) * 2 / size.amax(-1)[..., None, None]
            for points, size in ((points0, size0), (points1, size1))
        ],
        -1,
    )


class _Perceptron(nn.Sequential):
    """Shared by all matches: linear, context normalisation, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv1d(inputs, outputs, 1),
            # Over the matches of each pair and channel, without parameters: the context.
            _ContextNorm(),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        )


class _ContextNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(P, C, N) with mean 0 and variance 1 over N."""
        centred = x - x.mean(2, keepdim=True)
        return centred * (centred.square().mean(2, keepdim=True) + 1e-3).rsqrt()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_Perceptron(width, width), _Perceptron(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(P, C, N) of the same shape."""
        out: Tensor = x + self.layers(x)
        return out


class _OrderAware(nn.Module):
    """On clusters in their learned order: along the channels, then across the clusters."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.channels = _Residual(width)
        self.across = nn.Sequential(
            nn.BatchNorm1d(clusters), nn.ReLU(), nn.Conv1d(clusters, clusters, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(P, C, K) of the same shape."""
        x = self.channels(x)
        out: Tensor = x + self.across(x.mT).mT
        return out


class _Stage(nn.Module):
    def __init__(self, inputs: int, config: MatchFilterConfig) -> None:
        super().__init__()
        width, before = config.width, config.blocks
        if config.clusters:
            before = config.blocks // 2
            self.pool = nn.Conv1d(width, config.clusters, 1)
            self.unpool = nn.Conv1d(width, config.clusters, 1)
            self.clusters = nn.Sequential(
                *(_OrderAware(width, config.clusters) for _ in range(config.cluster_blocks))
            )
            self.joined = nn.Conv1d(2 * width, width, 1)
        self.enter = nn.Conv1d(inputs, width, 1)
        self.before = nn.Sequential(*(_Residual(width) for _ in range(before)))
        self.after = nn.Sequential(*(_Residual(width) for _ in range(config.blocks - before)))
        self.leave = nn.Conv1d(width, 1, 1)
        self._clustered = bool(config.clusters)

    def forward(self, x: Tensor) -> Tensor:
        """Log odds (P, N) of inputs (P, C, N)."""
        x = self.before(self.enter(x))
        if self._clustered:
            # DiffPool: a cluster is a weighted mean of matches; back, a match one of clusters.
            clusters = x @ self.pool(x).softmax(2).mT
            back = self.clusters(clusters) @ self.unpool(x).softmax(1)
            x = self.joined(torch.cat([x, back], 1))
        out: Tensor = self.leave(self.after(x))
        return out[:, 0]
