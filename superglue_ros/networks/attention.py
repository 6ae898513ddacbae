"""Attention between sets of nodes (eq. 4): of all keys, of the top-k keys, and pruned.

Query, key and value are (B, H, M, C), (B, H, N, C), (B, H, N, C); the message is (B, H, M, C).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; ``mask`` True = a key to attend to."""
    if not (q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # Training in bfloat16 on a CPU: torch's fused backward pass takes three times as long as this.
    with torch.autocast("cpu", enabled=False):
        similarity = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            similarity = similarity.masked_fill(~mask, -torch.inf)
        return similarity.softmax(dim=-1) @ v


def attention_weights(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    prune: float = 0.0,
) -> Tensor:
    """Attention weights (B, H, M, N), float32; rows without any key are zero.

    ``bias`` is added to the scaled similarities; ``mask`` True = a key to attend to. Weights up to
    ``prune`` are set to zero and the rest is normalised again (technical report, "Dynamic Attention
    Pruning"); the largest weight of a row always stays.
    """
    similarity = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-1, -2)
    if bias is not None:
        similarity = similarity + bias
    if mask is not None:
        similarity = similarity.masked_fill(~mask, -torch.inf)
    # The softmax of a row of padding would be NaN, in the backward pass too.
    empty = (similarity == -torch.inf).all(dim=-1, keepdim=True)
    weights = similarity.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)
    if not prune:
        return weights
    kept = weights > weights.amax(dim=-1, keepdim=True).clamp(max=prune)
    kept = kept | (weights == weights.amax(dim=-1, keepdim=True))
    weights = weights * kept
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)


_SAMPLED = 8
"""Queries of a block that choose its keys."""


def top_k_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    top_k: int,
    block: int,
) -> Tensor:
    """Attention of blocks of similar queries to the ``top_k`` keys that suit the block best.

    Queries are sorted along their main direction and cut into blocks of ``block``. A block attends
    to the keys of the largest inner product with any of eight of its queries, over the mean of that
    query's, so no M x N matrix is formed. With blocks of one this is the report's sparse attention,
    the softmax over a query's own k largest similarities. Masks (B, M) and (B, N), True = a node,
    None = no padding. Time and memory grow with M top_k, plus M N / block for choosing the keys.
    """
    batch, heads, m, c = q.shape
    n = k.shape[2]
    if m == 0 or n <= top_k:
        return attend(q, k, v, None if key_mask is None else key_mask[:, None, None, :])
    order = _along_main_direction(q.detach(), query_mask)
    blocks = -(-m // block)
    place = torch.arange(blocks * block, device=q.device).clamp(max=m - 1)
    queries = _rows(q, order[..., place]).unflatten(2, (blocks, block))
    with torch.no_grad():
        chosen = _choose_keys(queries, k, query_mask, key_mask, m, top_k)
    index = chosen.indices.flatten(2)
    alone = batch * heads * blocks
    keys, values = (_rows(x, index).view(alone, 1, top_k, -1) for x in (k, v))
    usable = None
    if key_mask is not None:  # a set of fewer keys than top_k: padding was chosen too
        usable = chosen.values.reshape(alone, 1, 1, top_k) > -torch.inf
        usable = usable | ~usable.any(dim=-1, keepdim=True)  # a block of padding
    message = attend(queries.reshape(alone, 1, block, c), keys, values, usable)
    sorted_message = message.reshape(batch, heads, blocks * block, -1)[:, :, :m]
    return _rows(sorted_message, order.argsort(dim=-1))


def _choose_keys(
    queries: Tensor,
    k: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    m: int,
    top_k: int,
) -> Any:
    """The top-k keys of every block; -inf are values of padding. ``m`` queries, padding included.

    ``queries`` (B, H, blocks, block, C) in their order, padding last.
    """
    blocks, block = queries.shape[2:4]
    step = max(1, block // _SAMPLED)
    sampled = queries[:, :, :, ::step]
    score = sampled.flatten(2, 3) @ k.transpose(-1, -2)
    score = score.unflatten(2, (blocks, -1))
    count = m if query_mask is None else query_mask.sum(dim=1)[:, None, None, None, None]
    place = torch.arange(blocks * block, device=k.device).view(blocks, block)[:, ::step]
    # A number added to all similarities of a query, as the keys' bias does, changes no attention.
    if key_mask is None:
        score = score - score.mean(dim=-1, keepdim=True)
    else:
        valid = key_mask[:, None, None, None, :]
        number = valid.sum(dim=-1, keepdim=True).clamp(min=1)
        score = score - (score * valid).sum(dim=-1, keepdim=True) / number
    score = score.masked_fill(place[None, None, :, :, None] >= count, -torch.inf).amax(dim=3)
    if key_mask is not None:
        score = score.masked_fill(~key_mask[:, None, None, :], -torch.inf)
    return score.topk(top_k, dim=-1, sorted=False)


def _along_main_direction(q: Tensor, mask: Tensor | None) -> Tensor:
    """Order (B, H, M) of queries along the direction in which they differ most, padding last."""
    q = q.float()
    if mask is None:
        centred = q - q.mean(dim=2, keepdim=True)
    else:
        valid = mask[:, None, :, None]
        mean = (q * valid).sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True).clamp(min=1)
        centred = (q - mean) * valid
    covariance = centred.transpose(-1, -2) @ centred
    direction = covariance.sum(dim=-1, keepdim=True)
    for _ in range(3):  # power iteration: near is good enough
        direction = covariance @ direction
        direction = direction / direction.norm(dim=2, keepdim=True).clamp(min=1e-12)
    along = (centred @ direction).squeeze(-1)
    if mask is not None:
        along = along.masked_fill(~mask[:, None], torch.inf)
    return along.argsort(dim=-1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, H, K) of (B, H, N, C): (B, H, K, C), as copies of whole rows."""
    batch, heads, n, c = x.shape
    start = n * torch.arange(batch * heads, device=x.device).view(batch, heads, 1)
    return x.reshape(-1, c).index_select(0, (index + start).flatten()).view(batch, heads, -1, c)
