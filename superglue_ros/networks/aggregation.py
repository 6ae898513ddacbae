"""How the messages of an attentional propagation are made and aggregated (eq. 3-4, and options).

An aggregation maps query, key and value (B, H, N, C) of the nodes ``to`` and ``source`` to the
message (B, H, M, S C) of each node, S = 1 but for :class:`MultiScale`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.networks.attention import attend, attention_weights, top_k_attention
from superglue_ros.networks.edges import EdgeFeatures, PositionBias
from superglue_ros.networks.nodes import Nodes
from superglue_ros.networks.superglue_config import SuperGlueConfig
from superglue_ros.networks.topology import Lattice, adaptive_edges

_POOLED_AT_ONCE = 1 << 24  # numbers of pairwise messages held at a time


def make_aggregation(config: SuperGlueConfig) -> nn.Module:
    """The aggregation of ``config``; the paper's has no parameters of its own."""
    one: nn.Module
    if config.top_k:
        one = TopKAttention(config.top_k, config.top_k_block)
    elif config.aggregation != "attention":
        one = Pooling(config)
    elif config.edges or config.position_bias or config.neighbours or config.prune:
        one = BiasedAttention(config)
    else:
        one = Attention()
    return one if config.scales == (1.0,) else MultiScale(one, config.scales)


class Attention(nn.Module):
    """The paper's: softmax attention on the complete graph."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """See the module."""
        return attend(q, k, v, _keys_only(source))

    def weights(self, q: Tensor, k: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """Attention weights (B, H, M, N), which rows of nodes sum to 1."""
        return attention_weights(q, k, _keys_only(source))


def _keys_only(source: Nodes) -> Tensor | None:
    return None if source.mask is None else source.mask[:, None, None, :]


class TopKAttention(nn.Module):
    """Sparse attention, see :func:`superglue_ros.networks.attention.top_k_attention`."""

    def __init__(self, top_k: int, block: int) -> None:
        super().__init__()
        self.top_k, self.block = top_k, block

    def forward(self, q: Tensor, k: Tensor, v: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """See the module."""
        return top_k_attention(q, k, v, to.mask, source.mask, self.top_k, self.block)

    def weights(self, q: Tensor, k: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """As :meth:`Attention.weights`; 0 for keys that a query does not attend to."""
        n = k.shape[2]
        each = torch.eye(n, device=k.device, dtype=k.dtype).expand(*k.shape[:2], n, n)
        return self(q, k, each, to, source)


class _Graph(nn.Module):
    """What an edge of the graph knows: whether it is there, and its features."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__()
        self.neighbours, self.cosine = config.neighbours, config.neighbour_cosine
        attention = config.aggregation == "attention"
        self.edges = (
            EdgeFeatures(config.edges, config.width, config.heads, attention)
            if config.edges
            else None
        )

    def allowed(self, to: Nodes, source: Nodes) -> Tensor | None:
        """Edges (B, 1 or M, N) True, None = all."""
        if self.neighbours:
            return adaptive_edges(to, source, self.neighbours, self.cosine)
        return None if source.mask is None else source.mask.unsqueeze(1)

    def features(self, to: Nodes, source: Nodes) -> Tensor | None:
        """e_ij (B, M, N, E), None where there are none."""
        if self.edges is None:
            return None
        assert to.xy is not None
        assert source.xy is not None
        found: Tensor = self.edges(to.xy, source.xy)
        return found


class BiasedAttention(_Graph):
    """Attention with edge features, a bias by position, an adaptive graph, or pruned weights."""

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__(config)
        self.prune = config.prune
        self.position = (
            PositionBias(config.position_bias, config.heads) if config.position_bias else None
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """See the module."""
        edges = self.features(to, source)
        weights = self._weights(q, k, to, source, edges)
        message = weights.to(v.dtype) @ v
        if self.edges is not None and edges is not None:
            message = message + self.edges.message(weights.to(edges.dtype), edges)
        return message

    def weights(self, q: Tensor, k: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """As :meth:`Attention.weights`."""
        return self._weights(q, k, to, source, self.features(to, source))

    def _weights(
        self, q: Tensor, k: Tensor, to: Nodes, source: Nodes, edges: Tensor | None
    ) -> Tensor:
        allowed = self.allowed(to, source)
        bias: Tensor | None = None
        if self.edges is not None and edges is not None:
            bias = self.edges.similarity(edges)
        if self.position is not None:
            near = self.position(to.xy, source.xy)
            bias = near if bias is None else bias + near
        mask = None if allowed is None else allowed.unsqueeze(1)
        return attention_weights(q, k, mask, bias, 0.0 if self.training else self.prune)


class Pooling(_Graph):
    """Mean or maximum of pairwise messages: AGG_j ReLU(q_i + v_j + W e_ij) (technical report).

    The report's MLP_msg is one layer of f_i, f_j and e_ij; the merge of the heads follows.
    """

    def __init__(self, config: SuperGlueConfig) -> None:
        super().__init__(config)
        self.largest = config.aggregation == "max"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """See the module; keys are not read."""
        if self.edges is None and not self.neighbours:
            return (_max_of_all if self.largest else _mean_of_all)(q, v, source.mask)
        allowed, edges = self.allowed(to, source), self.features(to, source)
        rows = max(1, _POOLED_AT_ONCE // max(1, v[..., 0, :].numel() * v.shape[2]))
        parts = []
        for start in range(0, q.shape[2], rows):
            part = slice(start, start + rows)
            pairwise = q[:, :, part].unsqueeze(3) + v.unsqueeze(2)  # (B, H, rows, N, C)
            if self.edges is not None and edges is not None:
                added = self.edges.value(edges[:, part]).unflatten(-1, (q.shape[1], -1))
                pairwise = pairwise + added.permute(0, 3, 1, 2, 4)
            pairwise = pairwise.relu()
            if allowed is None:
                parts.append(pairwise.amax(3) if self.largest else pairwise.mean(3))
                continue
            there = (allowed if allowed.shape[1] == 1 else allowed[:, part])[:, None, ..., None]
            pairwise = pairwise * there.to(pairwise.dtype)  # messages are not negative
            count = there.sum(dim=3).clamp(min=1).to(pairwise.dtype)
            parts.append(pairwise.amax(3) if self.largest else pairwise.sum(3) / count)
        return torch.cat(parts, dim=2) if parts else q


def _max_of_all(q: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """max_j ReLU(q_i + v_j): ReLU grows with v, so the largest v_j of each channel decides."""
    if mask is not None:
        v = v.masked_fill(~mask[:, None, :, None], -torch.inf)
    return F.relu(q + v.amax(dim=2, keepdim=True)) if v.shape[2] else torch.zeros_like(q)


def _mean_of_all(q: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """mean_j ReLU(q_i + v_j), of sorted values and their sums: no M x N messages.

    In a channel exactly the values above -q_i count, and they are the first of the sorted ones.
    """
    if v.shape[2] == 0:
        return torch.zeros_like(q)
    q_rows, v_rows = q.float().transpose(2, 3).contiguous(), v.float().transpose(2, 3)
    count: Tensor | int = v.shape[2]
    if mask is not None:
        padding = ~mask[:, None, None, :]
        v_rows = v_rows.masked_fill(padding, -torch.inf)
        count = mask.sum(dim=1).clamp(min=1)[:, None, None, None]
    falling = v_rows.sort(dim=3, descending=True).values
    # How many values are greater than -q_i.
    above = torch.searchsorted(-falling.detach().contiguous(), q_rows.detach())
    sums = falling.masked_fill(falling == -torch.inf, 0.0).cumsum(dim=3)
    chosen = sums.gather(3, (above - 1).clamp(min=0))
    total = torch.where(above > 0, chosen + above * q_rows, torch.zeros_like(chosen))
    return (total / count).transpose(2, 3).to(q.dtype)


class MultiScale(nn.Module):
    """Messages on several lattices of the image (technical report, "Multi-Scale Graph Processing").

    At a scale below 1, queries, keys and values are pooled to cells, messages pass between cells,
    and every node takes its cell's. The messages of all scales are concatenated; the merge of the
    heads projects them.
    """

    def __init__(self, one: nn.Module, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.one, self.scales = one, scales

    def forward(self, q: Tensor, k: Tensor, v: Tensor, to: Nodes, source: Nodes) -> Tensor:
        """See the module: (B, H, M, S C)."""
        messages = []
        for scale in self.scales:
            if scale == 1.0:
                messages.append(self.one(q, k, v, to, source))
                continue
            coarse, coarse_source = Lattice(to, scale), Lattice(source, scale)
            message = self.one(
                coarse.pool(q),
                coarse_source.pool(k),
                coarse_source.pool(v),
                coarse.nodes,
                coarse_source.nodes,
            )
            messages.append(coarse.unpool(message))
        return torch.cat(messages, dim=-1)
