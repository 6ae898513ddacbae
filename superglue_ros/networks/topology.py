"""Which nodes send messages to which: adaptive edges in feature space, lattices of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.networks.nodes import Nodes

CELLS = 32
"""Cells of a lattice of scale 1 along the image's larger side."""
_HALF = 0.5 / 0.7  # of the larger side, in normalised positions


@torch.no_grad()
def adaptive_edges(to: Nodes, source: Nodes, neighbours: int, cosine: float) -> Tensor:
    """Edges (B, M, N) True: to each node from its ``neighbours`` most similar and all above.

    The similarity is the cosine of the representations; ``cosine`` is the threshold above which
    there is an edge besides (technical report, "Adaptive Graph Topology").
    """
    similarity = F.normalize(to.x.float(), dim=-1) @ F.normalize(source.x.float(), dim=-1).mT
    if source.mask is not None:
        similarity = similarity.masked_fill(~source.mask.unsqueeze(1), -torch.inf)
    nearest = similarity.topk(min(neighbours, similarity.shape[2]), dim=-1).indices
    edges = (similarity > cosine).scatter(-1, nearest, True)
    return edges & (similarity > -torch.inf)


class Lattice:
    """Nodes pooled on a lattice of the image, and back (multi-scale graph processing).

    A lattice of scale s has 32 s cells along the larger side; a cell is the mean of its nodes.
    """

    def __init__(self, nodes: Nodes, scale: float) -> None:
        assert nodes.xy is not None
        side = max(1, round(CELLS * scale))
        place = ((nodes.xy + _HALF) / (2 * _HALF) * side).floor().long().clamp(0, side - 1)
        self.cell = place[..., 1] * side + place[..., 0]
        """Cell (B, N) of each node."""
        self.cells = side * side
        self._valid = (
            torch.ones_like(nodes.xy[..., 0]) if nodes.mask is None else nodes.mask.to(nodes.xy)
        )
        self._count = nodes.xy.new_zeros(len(nodes.xy), self.cells)
        self._count.scatter_add_(1, self.cell, self._valid)
        self.nodes = Nodes(self.pool(nodes.x), self.pool(nodes.xy), self._count > 0)
        """The cells as nodes; empty ones are padding."""

    def pool(self, values: Tensor) -> Tensor:
        """Mean of the nodes' ``values`` (B, N, C) or (B, H, N, C) in each cell; 0 in empty ones."""
        valid, count = self._valid.unsqueeze(-1), self._count.unsqueeze(-1)
        cell = self.cell.unsqueeze(-1)
        if values.dim() == 4:
            valid, count, cell = valid.unsqueeze(1), count.unsqueeze(1), cell.unsqueeze(1)
        shape = (*values.shape[:-2], self.cells, values.shape[-1])
        summed = values.new_zeros(shape).scatter_add(
            -2, cell.expand(values.shape), values * valid.to(values.dtype)
        )
        return summed / count.clamp(min=1).to(values.dtype)

    def unpool(self, values: Tensor) -> Tensor:
        """Every node's cell of ``values`` (B, H, cells, C): (B, H, N, C)."""
        cell = self.cell[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
        return values.gather(2, cell)
