"""What the cameras of a robot share: the networks, the landmark ids, and batches.

Frames that were taken together go through each network in one batch:

    rig.extract(frames) -> rig.encode -> pipeline.plan, one a camera -> rig.match(plans)
    -> pipeline.finish

A refused frame is passed on as its error and does not affect the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError, SuperglueError
from superglue_ros.frontends.base import FrontEnd, make_front_end
from superglue_ros.mapping.encoding import Extracted, encode, extract, prepare
from superglue_ros.mapping.global_descriptor import Pooling
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.rotation import best_turn, is_poor, turned_encodings
from superglue_ros.mapping.tracks import Tracks
from superglue_ros.matchers.base import Matcher, make_matcher
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.weights import superglue_name
from superglue_ros.registry import MATCHERS
from superglue_ros.types import Correspondences, Frame

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Pairing:
    """A reference to match a query against, and why; ``guided``: matches without the matcher."""

    candidate: Candidate
    query: Keyframe
    guided: Correspondences | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """An encoded frame and the references to match it against."""

    encoded: Extracted
    pairings: tuple[Pairing, ...]


@dataclass(frozen=True, eq=False)
class Matched:
    """A plan and the correspondences of each of its pairings."""

    plan: Plan
    found: tuple[Correspondences, ...]


class Rig:
    """Networks and landmark ids of one robot's cameras.

    Not thread-safe, but for one thing: :meth:`extract` may run in one thread while another one does
    all the rest. Front-end and matcher keep their working memory apart.

    ``front_end`` and ``matcher`` default to those that ``config`` names. Raises
    :class:`ConfigError`, :class:`WeightsError`, and :class:`DescriptorKindError` where matcher and
    ``place_weights`` are made for different descriptors.
    """

    def __init__(
        self,
        config: Config | None = None,
        front_end: FrontEnd | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        self.config = config or Config()
        if matcher is None and not MATCHERS.choose(self.config.matcher.name).one_to_one:
            raise ConfigError(
                f"matcher.name {self.config.matcher.name} gives keypoints several partners, which "
                f"no track can follow: it is for the evaluation of pairs only"
            )
        device = self._device = resolve_device(self.config.device)
        self.front_end = front_end or make_front_end(self.config, device)
        self.matcher = matcher or make_matcher(self.config, device)
        self.pool = Pooling(self.config.place_weights)
        if self.matcher.descriptor_kind is not None:
            self.pool.check_kind(self.matcher.descriptor_kind)
        self.tracks = Tracks()
        self._extracting = threading.Lock()  # a front-end serves one thread at a time

    def configure(self, config: Config) -> None:
        """Apply new settings from the next frame on; fixed settings must not change."""
        self.config = config
        self.front_end.configure(config.front_end)
        self.matcher.configure(config.matcher)

    @property
    def device(self) -> str:
        """Where the networks run, and on a GPU whether as CUDA graphs."""
        if self._device.type != "cuda":
            return str(self._device)
        parts = {"front-end": self.front_end, "matcher": self.matcher}
        graphed = [name for name, part in parts.items() if getattr(part, "graphed", False)]
        return f"{self._device} ({'CUDA graphs: ' + ', '.join(graphed) if graphed else 'eager'})"

    @property
    def precision(self) -> str:
        """The precision in effect: that of front-end and matcher, in this order, if they differ."""
        used = (self.front_end.precision, self.matcher.precision)
        return used[0] if used[0] == used[1] else ", ".join(used)

    @property
    def detector(self) -> str:
        """Kind of descriptors that the matcher takes; the front-end's own where it takes any."""
        return self.matcher.descriptor_kind or self.front_end.detector

    @property
    def networks(self) -> str:
        """Front-end and matcher with their weights, as the status shows them."""
        names = [self.config.front_end.name, self.config.matcher.name]
        weights = [self.config.front_end.weights, ""]
        if names[1] == "superglue":
            weights[1] = superglue_name(self.config.matcher.weights, self._device)
        return ", ".join(n + (w and f" ({w})") for n, w in zip(names, weights, strict=True))

    def extract(self, frames: Sequence[Frame]) -> list[Extracted | SuperglueError]:
        """Features of every frame, images in one batch."""
        with self._extracting:
            return extract(frames, self.front_end, self.config)

    def encode(
        self, extracted: Sequence[Extracted | SuperglueError]
    ) -> list[Extracted | SuperglueError]:
        """The same frames with the matcher's encoding of their features."""
        step = partial(encode, matcher=self.matcher, pool=self.pool)
        return [attempt(step, one) for one in extracted]

    def prepare(self, raw: Keyframe) -> Keyframe:
        """The keyframe ready to be matched and found. Raises :class:`DescriptorKindError`."""
        return prepare(raw, self.matcher, self.pool)

    def match(self, plans: Sequence[Plan | SuperglueError]) -> list[Matched | SuperglueError]:
        """The correspondences of every plan, all in one batch.

        If the batch cannot be matched, each plan is matched separately.
        """
        pairings = [p for plan in plans if isinstance(plan, Plan) for p in plan.pairings]
        try:
            found = iter(self.match_pairings(pairings))
        except SuperglueError as error:
            if len(plans) == 1:
                return [error]
            return [outcome for plan in plans for outcome in self.match([plan])]
        return [
            Matched(plan, tuple(next(found) for _ in plan.pairings))
            if isinstance(plan, Plan)
            else plan
            for plan in plans
        ]

    def match_pairings(self, pairings: Sequence[Pairing]) -> list[Correspondences]:
        """The correspondences of every pairing, in one batch. Raises :class:`SuperglueError`."""
        unknown = [pairing for pairing in pairings if pairing.guided is None]
        matched: list[Correspondences] = []
        if unknown:
            matched = self.matcher.match_pairs(
                [pairing.candidate.keyframe.prepared for pairing in unknown],
                [pairing.query.prepared for pairing in unknown],
            )
        found = iter(self._turned(unknown, matched))
        return [next(found) if one.guided is None else one.guided for one in pairings]

    def _turned(
        self, pairings: Sequence[Pairing], found: list[Correspondences]
    ) -> list[Correspondences]:
        """``found`` with the matches of turned images where they are more."""
        if self.config.front_end.rotation == "none":
            return found
        encodings: dict[int, list[Any]] = {}  # a query has several pairings
        for index, pairing in enumerate(pairings):
            reference, query = pairing.candidate.keyframe, pairing.query
            keypoints = min(len(reference.features), len(query.features))
            if query.resized is None or not is_poor(found[index], keypoints):
                continue
            if id(query) not in encodings:
                with self._extracting:
                    encodings[id(query)] = turned_encodings(
                        query.features, query.resized, self.front_end, self.matcher
                    )
            found[index] = best_turn(
                found[index], reference.prepared, encodings[id(query)], self.matcher
            )
        return found


def attempt(step: Callable[[Given], Made], given: Given | SuperglueError) -> Made | SuperglueError:
    """Apply ``step`` to ``given``; returns its error, or ``given`` if that is one already."""
    if isinstance(given, SuperglueError):
        return given
    try:
        return step(given)
    except SuperglueError as error:
        return error
