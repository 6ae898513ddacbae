"""The optimal matching layer (section 3.2): from matching descriptors to the assignment.

With the options of the technical report: a learned temperature, separate dustbins, a learned number
of iterations, clusters first, and a probability that a match is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superglue_ros.networks.clusters import hierarchical_assignment

Solver = Callable[..., Tensor]
"""Optimal transport with the arguments of :func:`superglue_ros.networks.sinkhorn.log_sinkhorn`."""

_MOST = 1 - 1e-6  # of a probability, so that its log odds are finite
_START = 0.2
"""Part of the largest number of iterations that an untrained predictor asks for."""


class IterationPredictor(nn.Module):
    """How many Sinkhorn iterations a pair needs, from the mean of its matching descriptors.

    In training a real number from 1 to ``maximum``, in evaluation rounded up: 1 + sigmoid(w f + b)
    (maximum - 1), f the mean of both images' means.
    """

    def __init__(self, width: int, maximum: int) -> None:
        super().__init__()
        self.maximum = maximum
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, math.log(_START / (1 - _START)))

    def forward(
        self, f0: Tensor, f1: Tensor, mask0: Tensor | None, mask1: Tensor | None, limit: int
    ) -> Tensor:
        """(P,) iterations for (P, M, D) and (P, N, D); at most ``limit``."""
        mean = (_mean(f0.float(), mask0) + _mean(f1.float(), mask1)) / 2
        part = self.linear(mean).squeeze(-1).sigmoid()
        count = (1 + part * (self.maximum - 1)).clamp(max=limit)
        return count if self.training else count.ceil()


class UncertaintyHead(nn.Module):
    """Doubt about a match, and the probability that the match is right.

    The doubt is h_i + h_j, h linear in the descriptors. The report multiplies P by one minus a
    sigmoid, which can only lower it; here the doubt is taken from a multiple of the log odds of P,
    so that the score can be calibrated both ways. At first it is P.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.log_scale = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, f0: Tensor, f1: Tensor) -> Tensor:
        """Doubt (P, M, N) as log odds."""
        h0, h1 = self.linear(f0.float()), self.linear(f1.float())
        both: Tensor = h0 + h1.transpose(1, 2)
        return both

    def log_score(self, log_p: Tensor, doubt: Tensor) -> Tensor:
        """Logarithm of the probability that a match of assignment probability P is right."""
        log_odds = log_p - torch.log1p(-log_p.exp().clamp(max=_MOST))
        return F.logsigmoid(self.log_scale.exp() * log_odds - doubt)


@dataclass(frozen=True, eq=False)
class Matching:
    """The layer in evaluation, on descriptors divided by the root of the temperature.

    ``stop``, ``doubt``: the heads of a network that has them; ``levels``: of the hierarchy, 0 =
    flat.
    """

    dustbin: Tensor
    stop: IterationPredictor | None = None
    doubt: UncertaintyHead | None = None
    levels: int = 0

    def assign(
        self,
        f0: Tensor,
        f1: Tensor,
        iterations: int,
        solve: Solver,
        scores: Tensor | None = None,
    ) -> Tensor:
        """Log assignment (1, M+1, N+1) of one pair (1, M, D), (1, N, D) without padding.

        ``scores``: those of the pair where the caller has them. Where there is a head for it, the
        probability that a match is right takes the place of its P: rows need not sum to one.
        """
        if self.stop is not None:
            iterations = int(self.stop(f0, f1, None, None, iterations))
        if self.levels:
            found = hierarchical_assignment(
                f0[0], f1[0], self.dustbin, iterations, self.levels, solve
            )
        else:
            scores = f0 @ f1.transpose(1, 2) if scores is None else scores
            found = solve(scores, self.dustbin, iterations)
        if self.doubt is not None:
            inner = found[:, :-1, :-1]
            found[:, :-1, :-1] = self.doubt.log_score(inner, self.doubt(f0, f1))
        return found

    @property
    def plain(self) -> bool:
        """Whether a batch of pairs is one call of the solver."""
        return self.stop is None and self.doubt is None and not self.levels


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the nodes (P, N, D): (P, D)."""
    if mask is None:
        return x.mean(dim=1)
    valid = mask.unsqueeze(-1).to(x.dtype)
    return (x * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def each_pair_alone(
    matching: Matching,
    f0: Tensor,
    f1: Tensor,
    mask0: Tensor,
    mask1: Tensor,
    iterations: int,
    solve: Solver,
) -> Tensor:
    """:meth:`Matching.assign` for every pair of a padded batch: (P, M+1, N+1), padding -inf."""
    out = f0.new_full((len(f0), f0.shape[1] + 1, f1.shape[1] + 1), -torch.inf)
    for p, (rows, columns) in enumerate(zip(mask0, mask1, strict=True)):
        found = matching.assign(f0[p, rows][None], f1[p, columns][None], iterations, solve)[0]
        place0 = torch.cat([rows.nonzero()[:, 0], rows.new_tensor([len(rows)], dtype=torch.long)])
        place1 = torch.cat(
            [columns.nonzero()[:, 0], columns.new_tensor([len(columns)], dtype=torch.long)]
        )
        out[p, place0.unsqueeze(1), place1] = found
    return out
