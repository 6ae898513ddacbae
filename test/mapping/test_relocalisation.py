"""How many keyframes a lost frame is matched against, and which is taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from superglue_ros.mapping.relocalisation import BATCH, relocalise


def pair(name: int, inliers: int) -> SimpleNamespace:
    """What a verified candidate looks like to the search."""
    return SimpleNamespace(
        name=name, tracked=inliers > 0, pose=SimpleNamespace(num_inliers=inliers)
    )


class Matching:
    """Candidates are numbers; ``inliers`` says how many each of them has, 0 by default."""

    def __init__(self, inliers: dict[int, int]) -> None:
        self.tried: list[int] = []
        self._inliers = inliers

    def __call__(self, batch: list[int]) -> list[SimpleNamespace]:
        self.tried += batch
        return [pair(name, self._inliers.get(name, 0)) for name in batch]


@pytest.mark.parametrize(("most", "tried"), [(0, 11), (1, 1), (6, 6), (8, 8), (100, 11)])
def test_no_more_keyframes_are_tried_than_the_bound_says(most, tried):
    matching = Matching({})
    found = relocalise(list(range(11)), matching, most)
    assert (found.name, found.tracked) == (0, False)  # the most similar one says that it is lost
    assert matching.tried == list(range(tried))


def test_the_best_of_the_first_batch_that_has_any_is_taken():
    matching = Matching({BATCH: 40, BATCH + 2: 60, 2 * BATCH: 900})
    found = relocalise(list(range(20)), matching, most=0)
    assert found.name == BATCH + 2
    assert matching.tried == list(range(2 * BATCH))


@pytest.mark.parametrize(("most", "found"), [(BATCH, False), (BATCH + 1, True)])
def test_a_keyframe_beyond_the_bound_is_not_found(most, found):
    matching = Matching({BATCH: 40})
    assert relocalise(list(range(20)), matching, most).tracked == found


def test_without_candidates_there_is_none():
    assert relocalise([], Matching({})) is None


def test_a_budget_of_time_ends_the_search_after_the_first_batch():
    matching = Matching({BATCH: 40})
    assert not relocalise(list(range(20)), matching, most=0, budget_s=1e-9).tracked
    assert matching.tried == list(range(BATCH))
