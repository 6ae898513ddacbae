"""Edge features of the technical report: where two nodes lie relative to each other.

Positions are normalised (:func:`superglue_ros.networks.position_encoding.normalise_keypoints`): the
image centre is the origin. Edges between images compare the positions in their own images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from superglue_ros.networks.position_encoding import EXTENT

_SMALL = 1e-6


def edge_geometry(to: Tensor, source: Tensor) -> Tensor:
    """Distance, offset (2) and cosine (B, M, N, 4) of edges between (B, M, 2) and (B, N, 2).

    [||p_i - p_j||, p_i - p_j, cos theta_ij]; theta is the angle between the keypoints as seen from
    the image centre.
    """
    offset = to.unsqueeze(2) - source.unsqueeze(1)
    distance = (offset.square().sum(dim=-1, keepdim=True) + _SMALL**2).sqrt()
    directions = [
        p / (p.square().sum(dim=-1, keepdim=True) + _SMALL**2).sqrt() for p in (to, source)
    ]
    cosine = directions[0] @ directions[1].transpose(1, 2)
    return torch.cat([distance, offset, cosine.unsqueeze(-1)], dim=-1)


class EdgeFeatures(nn.Module):
    """e_ij = MLP_edge([||p_i - p_j||; p_i - p_j; cos theta_ij]), and what messages make of it.

    ``channels`` of e_ij. A linear function of e_ij is added to the values and, in attention, to the
    similarities.
    """

    def __init__(self, channels: int, width: int, heads: int, attention: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(4, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.bias = nn.Linear(channels, heads, bias=False) if attention else None
        self.value = nn.Linear(channels, width, bias=False)
        self.heads = heads
        for linear in (self.bias, self.value):  # at first the edges add nothing
            if linear is not None:
                nn.init.zeros_(linear.weight)

    def forward(self, to: Tensor, source: Tensor) -> Tensor:
        """e_ij (B, M, N, E)."""
        edges: Tensor = self.mlp(edge_geometry(to, source))
        return edges

    def similarity(self, edges: Tensor) -> Tensor:
        """What is added to the similarities, (B, H, M, N)."""
        assert self.bias is not None
        added: Tensor = self.bias(edges).permute(0, 3, 1, 2)
        return added

    def message(self, weights: Tensor, edges: Tensor) -> Tensor:
        """Weighted sum (B, H, M, C) of the edges' values, by ``weights`` (B, H, M, N)."""
        summed = torch.einsum("bhmn,bmne->bhme", weights, edges)
        value = self.value.weight.unflatten(0, (self.heads, -1))  # (H, C, E)
        return torch.einsum("bhme,hce->bhmc", summed, value)


class PositionBias(nn.Module):
    """A bias of the attention towards near keypoints: w_h exp(-distance / reach).

    ``reach`` in parts of the image's larger side. The report adds the exponential itself; every
    head learns its weight, from 1 on.
    """

    def __init__(self, reach: float, heads: int) -> None:
        super().__init__()
        self.reach = reach / EXTENT
        self.weight = nn.Parameter(torch.ones(heads))

    def forward(self, to: Tensor, source: Tensor) -> Tensor:
        """(B, H, M, N)."""
        square = (to.unsqueeze(2) - source.unsqueeze(1)).square().sum(dim=-1)
        near = (-(square + _SMALL**2).sqrt() / self.reach).exp()
        return near.unsqueeze(1) * self.weight[:, None, None]
