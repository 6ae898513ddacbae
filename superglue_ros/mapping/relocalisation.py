"""Relocalisation: match against the keyframes of the map, the most similar first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from superglue_ros.mapping.keyframes import Candidate
from superglue_ros.mapping.verification import FramePair

BATCH = 4  # keyframes matched at once: few enough to stop soon after the first success


def relocalise(
    candidates: Sequence[Candidate],
    match: Callable[[Sequence[Candidate]], Iterable[FramePair]],
    most: int = 0,
    budget_s: float = 0.0,
) -> FramePair | None:
    """The pair with the most inliers of the first batch that has any verified one.

    If none has, the pair with the first candidate, which is not verified; None if there are no
    candidates. ``match`` verifies a batch of candidates. At most ``most`` candidates are tried, 0 =
    all: this bound is deterministic. No new batch is begun after ``budget_s`` seconds, 0 = no
    bound; the first batch is always tried.
    """
    if most:
        candidates = candidates[:most]
    first: FramePair | None = None
    deadline = time.perf_counter() + budget_s
    for start in range(0, len(candidates), BATCH):
        if start and budget_s and time.perf_counter() > deadline:
            break
        pairs = list(match(candidates[start : start + BATCH]))
        found = [pair for pair in pairs if pair.tracked]
        if found:
            return max(found, key=lambda pair: pair.pose.num_inliers)
        first = first or pairs[0]
    return first
