"""Which images are matched: by order, by likeness, by place, or all with all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.trajectories import text_rows
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.types import FloatArray

Pair = tuple[int, int]
"""Places of two images, the smaller first."""

RULES = {"sequential": 5, "retrieval": 10, "poses": 10, "exhaustive": 0}
"""Names of the rules, and how many partners each gives an image if nothing is said."""
EXHAUSTIVE_UP_TO = 40
"""So few images are all matched with each other by default."""
_WIDEST_TURN_DEG = 60.0
_BLOCK = 512


@dataclass(frozen=True)
class Rule:
    """A rule of :data:`RULES` with its number of partners, or a list of pairs in ``file``."""

    name: str
    partners: int = 0
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else f"{self.name}:{self.partners}".removesuffix(":0")


def parse_rule(word: str) -> Rule:
    """``NAME``, ``NAME:PARTNERS`` or a file of pairs. Raises :class:`ConfigError`."""
    name, _, number = word.partition(":")
    if name in RULES:
        if number and (not number.isdecimal() or int(number) < 1):
            raise ConfigError(f"--pairs {word}: give a number of partners, as in {name}:10")
        return Rule(name, int(number) if number else RULES[name])
    if Path(word).is_file():
        return Rule("list", file=Path(word))
    raise ConfigError(
        f"--pairs {word} is no rule and no file: give {', '.join(RULES)} (with a number of "
        f"partners, as in retrieval:20), or a file with two names a line"
    )


def default_rules(count: int, ordered: bool) -> list[Rule]:
    """Everything for few images; the neighbours in time and the most alike for more."""
    if count <= EXHAUSTIVE_UP_TO:
        return [Rule("exhaustive")]
    if ordered:
        return [Rule("sequential", 5), Rule("retrieval", 5)]
    return [Rule("retrieval", 20)]


def select_pairs(
    rules: Sequence[Rule],
    names: Sequence[str],
    poses: Sequence[NDArray[np.float64] | None],
    global_descriptors: Callable[[], Sequence[FloatArray | None]],
) -> list[Pair]:
    """The pairs of all rules, each once, sorted.

    Retrieval comes last and counts only partners that no other rule gives. Raises
    :class:`ConfigError` and :class:`DataError`.
    """
    chosen: set[Pair] = set()
    count = len(names)
    for rule in sorted(rules, key=lambda rule: rule.name == "retrieval"):
        if rule.name == "exhaustive":
            chosen |= set(combinations(range(count), 2))
        elif rule.name == "sequential":
            chosen |= {(i, j) for i in range(count) for j in _next(i, rule.partners, count)}
        elif rule.name == "poses":
            chosen |= pairs_by_pose(poses, rule.partners)
        elif rule.name == "retrieval":
            chosen |= pairs_by_likeness(global_descriptors(), rule.partners, chosen)
        elif rule.file is not None:
            chosen |= listed_pairs(rule.file, names)
    return sorted(chosen)


def pairs_by_likeness(
    descriptors: Sequence[FloatArray | None], partners: int, besides: set[Pair] | None = None
) -> set[Pair]:
    """Every image with the ``partners`` most similar ones that it is not paired with already.

    ``descriptors`` (G,) of unit length; images without one get no partner.
    """
    have = [i for i, one in enumerate(descriptors) if one is not None]
    if len(have) < 2:
        return set()
    matrix = np.stack([descriptors[i] for i in have])  # type: ignore[misc]
    taken, found = besides or set(), set[Pair]()
    for start in range(0, len(have), _BLOCK):
        for row, similar in enumerate(matrix[start : start + _BLOCK] @ matrix.T, start):
            order = (have[k] for k in np.argsort(-similar, kind="stable"))
            others = (j for j in order if j != have[row] and _pair(have[row], j) not in taken)
            found |= {_pair(have[row], j) for _, j in zip(range(partners), others, strict=False)}
    return found


def pairs_by_pose(poses: Sequence[NDArray[np.float64] | None], partners: int) -> set[Pair]:
    """Every image with the ``partners`` nearest ones that look the same way within 60 degrees.

    Raises :class:`ConfigError` where no pose is known.
    """
    have = [i for i, pose in enumerate(poses) if pose is not None]
    if len(have) < 2:
        raise ConfigError("--pairs poses needs poses: give a sequence or a bag that has them")
    array = np.stack([poses[i] for i in have])  # type: ignore[misc]
    centres, axes = array[:, :3, 3], array[:, :3, 2]
    found = set()
    for row, i in enumerate(have):
        distance = np.linalg.norm(centres - centres[row], axis=1)
        distance[axes @ axes[row] < np.cos(np.radians(_WIDEST_TURN_DEG))] = np.inf
        distance[row] = np.inf
        nearest = np.argsort(distance, kind="stable")[:partners]
        found |= {_pair(i, have[k]) for k in nearest if np.isfinite(distance[k])}
    return found


def listed_pairs(file: Path, names: Sequence[str]) -> set[Pair]:
    """The pairs of a file, two names a line; raises :class:`DataError` naming the line."""
    places = {name: place for place, name in enumerate(names)}
    found = set()
    for number, words in text_rows(file):
        if len(words) < 2 or words[0] == words[1]:
            raise DataError(f"{file}, line {number}: give the names of two images")
        for word in words[:2]:
            if word not in places:
                raise DataError(f"{file}, line {number}: there is no image {word}")
        found.add(_pair(places[words[0]], places[words[1]]))
    return found


def _next(place: int, reach: int, count: int) -> range:
    return range(place + 1, min(place + reach + 1, count))


def _pair(i: int, j: int) -> Pair:
    return (i, j) if i < j else (j, i)
