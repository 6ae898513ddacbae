"""The matches that an assignment holds (section 4): pairs that are each other's best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Partners = tuple[NDArray[np.int32], NDArray[np.float32]]
"""For every keypoint of the reference (M,): its partner in the query, -1 = none, and the
probability of the best assignment."""


def mutual_best(log_assignment: Tensor) -> tuple[Tensor, Tensor]:
    """Partners (P, M) int32, -1 = none, and probabilities (P, M) float32.

    ``log_assignment`` (P, M+1, N+1), dustbins last, -inf where there is padding. Waits for nothing.
    """
    inner = log_assignment[:, :-1, :-1]
    if inner.shape[1] == 0 or inner.shape[2] == 0:
        best = inner.new_zeros(inner.shape[:2], dtype=torch.float32)
        return torch.full_like(best, -1, dtype=torch.int32), best
    best, to_query = inner.max(dim=2)
    to_reference = inner.argmax(dim=1)
    rows = torch.arange(inner.shape[1], device=inner.device)
    mutual = to_reference.gather(1, to_query) == rows
    return torch.where(mutual, to_query, -1).to(torch.int32), best.float().exp()


class MutualMatches:
    """What an engine with ``match_pairs`` gives a matcher."""

    match_pairs: Any

    def partners(
        self, references: Sequence[Any], queries: Sequence[Any], iterations: int
    ) -> Iterator[tuple[int, Partners]]:
        """Match prepared references against queries, pair by pair; none empty.

        Yields the number of the pair and its partners, in no particular order.
        """
        for k, assignment in self.match_pairs(references, queries, iterations):
            index, probability = mutual_best(assignment)
            yield k, (index[0].cpu().numpy(), probability[0].cpu().numpy())
