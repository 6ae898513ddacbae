"""Hierarchical assignment: clusters of descriptors first, then keypoints within matched clusters.

The technical report's "Hierarchical Assignment". Optimal transport of M and N keypoints takes time
in proportion to M N; here that of each cluster alone. A match whose keypoints share no cluster is
lost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = 3
"""Clusters that a keypoint of image B belongs to."""
_ROUNDS = 6
_LEAST = 1e-9  # of a probability, so that its logarithm is finite

Solve = Callable[[Tensor, Tensor, int], Tensor]
"""Scores (1, M, N), dustbin and iterations to the log assignment (1, M+1, N+1)."""


def cluster_count(keypoints: int, levels: int) -> int:
    """Clusters of ``keypoints``, of 2^levels each on average."""
    return max(1, keypoints >> levels)


def k_means(x: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Centres (K, D) and labels (N,) of rows (N, D) by Lloyd's algorithm.

    The first centres are rows at equal steps along the direction of largest variation: the result
    does not depend on the order of the rows. A centre without rows stays where it was.
    """
    centred = x - x.mean(dim=0)
    direction = centred[centred.square().sum(dim=1).argmax()]
    for _ in range(3):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp(min=1e-12)
    order = (centred @ direction).argsort()
    step = torch.arange(clusters, device=x.device) * 2 + 1
    centres = x[order[(step * len(x)) // (2 * clusters)]]
    labels = _closeness(x, centres).argmax(dim=1)
    for _ in range(_ROUNDS):
        count = torch.bincount(labels, minlength=clusters).unsqueeze(1)
        summed = torch.zeros_like(centres).index_add_(0, labels, x)
        centres = torch.where(count > 0, summed / count.clamp(min=1), centres)
        labels = _closeness(x, centres).argmax(dim=1)
    return centres, labels


def hierarchical_assignment(
    f0: Tensor, f1: Tensor, dustbin: Tensor, iterations: int, levels: int, solve: Solve
) -> Tensor:
    """Log assignment (1, M+1, N+1) of matching descriptors (M, D), (N, D); -inf across clusters.

    Scores are inner products. Both images share the clusters, of the directions of their
    descriptors about each image's mean: that is the coarse matching. A keypoint of image A is in
    one cluster, one of image B in its :data:`CANDIDATES` nearest ones. ``solve`` is the optimal
    transport, of the keypoints of each cluster.
    """
    m, n = len(f0), len(f1)
    clusters = cluster_count(min(m, n), levels)
    if clusters <= CANDIDATES:
        return solve((f0 @ f1.T)[None], dustbin, iterations)
    directions = [F.normalize(f - f.mean(dim=0), dim=1) for f in (f0, f1)]
    centres, labels = k_means(torch.cat(directions), clusters)
    near = _closeness(directions[1], centres).topk(CANDIDATES, dim=1).indices
    rows_of = _members(labels[:m], torch.arange(m, device=f0.device), clusters)
    all_columns = torch.arange(n, device=f0.device).repeat_interleave(CANDIDATES)
    columns_of = _members(near.flatten(), all_columns, clusters)
    out = f0.new_full((m + 1, n + 1), -torch.inf)
    for rows, columns in zip(rows_of, columns_of, strict=True):
        if len(rows) == 0:
            continue
        fine = solve((f0[rows] @ f1[columns].T)[None], dustbin, iterations)[0]
        out[rows.unsqueeze(1), columns] = fine[:-1, :-1]
        out[rows, -1] = fine[:-1, -1]
    # A column may be in several of the problems: what no keypoint took is the dustbin's.
    taken = out[:-1, :-1].exp().sum(dim=0)
    out[-1, :-1] = (1 - taken).clamp(min=_LEAST).log()
    out[-1, -1] = taken.sum().clamp(min=_LEAST).log()
    return out[None]


def _closeness(x: Tensor, centres: Tensor) -> Tensor:
    """Larger for nearer ``centres`` (K, D): half the difference to the squared distance, (N, K)."""
    return x @ centres.T - centres.square().sum(dim=1) / 2


def _members(labels: Tensor, members: Tensor, clusters: int) -> list[Tensor]:
    """The ``members`` (N,) of each cluster, which ``labels`` (N,) tell."""
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=clusters).tolist()
    return list(members[order].split(counts))
