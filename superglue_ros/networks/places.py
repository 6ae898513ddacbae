"""Learned aggregation of local descriptors into one of the image, for place recognition.

NetVLAD (Arandjelovic et al., CVPR 2016, section 3.1) with ghost clusters (Zhong et al., GhostVLAD,
ACCV 2018): what is assigned to a ghost counts nowhere. In place of one large projection each
cluster's residual has its own small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHARPNESS = 20.0  # of the assignment where training starts


@dataclass(frozen=True)
class PlacesConfig:
    """Architecture: ``width`` numbers of each of ``clusters``, which is the descriptor's length."""

    descriptor_dim: int = 256
    clusters: int = 32
    ghosts: int = 2
    width: int = 32


class PlaceAggregation(nn.Module):
    """Local descriptors of images to one descriptor of each."""

    def __init__(self, config: PlacesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PlacesConfig()
        dim, clusters = config.descriptor_dim, config.clusters
        self.assign = nn.Linear(dim, clusters + config.ghosts)
        self.anchors = nn.Parameter(F.normalize(torch.randn(clusters, dim), dim=1))
        self.project = nn.Parameter(torch.randn(clusters, dim, config.width) / dim**0.5)
        with torch.no_grad():
            self.assign.weight.zero_()
            self.assign.weight[:clusters] = _SHARPNESS * self.anchors
            self.assign.bias.zero_()

    def forward(self, descriptors: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit vectors (B, clusters x width) of descriptors (B, N, D) of unit length.

        ``mask`` (B, N): which of them there are; None = all.
        """
        centred = descriptors - _mean(descriptors, mask)
        weights = self.assign(F.normalize(centred, dim=2)).softmax(2)[..., : self.config.clusters]
        if mask is not None:
            weights = weights * mask[..., None]
        residuals = weights.mT @ centred - weights.sum(1)[..., None] * self.anchors
        projected = torch.einsum("bkd,kdw->bkw", F.normalize(residuals, dim=2), self.project)
        return F.normalize(projected.flatten(1), dim=1)


def _mean(descriptors: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 1, D), of those that there are."""
    if mask is None:
        return descriptors.mean(1, keepdim=True)
    present = mask[..., None].to(descriptors)
    return (descriptors * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
