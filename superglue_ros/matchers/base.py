"""The interface of a matcher.

``prepare`` does the work that needs one set only, once (a keyframe keeps the result);
``match_pairs`` then matches all references of a query in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.errors import DescriptorKindError, FeaturesError
from superglue_ros.registry import MATCHERS
from superglue_ros.types import Correspondences, Features, FloatArray


class Matcher(Protocol):
    """The interface of a matcher; ``test/contract`` specifies it.

    ``descriptor_kind``: the kind of descriptors it was made for, None = any, if both sets have the
    same. ``precision``: the precision in effect, as in the setting of that name.
    """

    descriptor_kind: str | None

    @property
    def precision(self) -> str:
        """Of the network, if there is one."""

    def prepare(self, features: Features) -> Any:
        """The work that needs one set only. Raises :class:`DescriptorKindError`."""
        ...

    def match_pairs(
        self, references: Sequence[Any], queries: Sequence[Any]
    ) -> list[Correspondences]:
        """Match each prepared reference against the query of the same position, in one batch."""
        ...

    def configure(self, config: MatcherConfig) -> None:
        """Apply new settings from the next match on; fixed settings do not change."""
        ...


def make_matcher(config: Config, device: torch.device) -> Matcher:
    """The matcher that ``config.matcher`` names. Raises :class:`ConfigError`."""
    made: Matcher = MATCHERS.make(config.matcher.name, config, device)
    return made


def match_pair(matcher: Matcher, reference: Features, query: Features) -> Correspondences:
    """Match two sets of features."""
    return matcher.match_pairs([matcher.prepare(reference)], [matcher.prepare(query)])[0]


def check_kind(features: Features, kind: str | None, dim: int | None) -> None:
    """Refuse features without descriptors, or of another kind or size than ``kind`` and ``dim``."""
    if features.descriptors is None:
        raise FeaturesError("features have no descriptors: describe the keypoints first")
    if kind is not None and features.detector != kind:
        raise DescriptorKindError(
            f"descriptors are {features.detector!r} but the matcher was made for {kind!r}: "
            f"use that front-end, or matcher weights made for these descriptors"
        )
    if dim is not None and features.descriptor_dim != dim:
        raise DescriptorKindError(
            f"descriptors have {features.descriptor_dim} values but the matcher takes {dim}: "
            f"use matcher weights made for these descriptors"
        )


def check_same_kind(reference: tuple[str, int], query: tuple[str, int]) -> None:
    """Refuse sets whose descriptors, given as (kind, dimension), cannot be compared."""
    if reference != query:
        raise DescriptorKindError(
            f"reference descriptors are {reference[0]} ({reference[1]}) but the query's are "
            f"{query[0]} ({query[1]}): use one front-end for both"
        )


def as_tensor(values: FloatArray | None) -> Tensor:
    """A tensor on the array's memory; torch refuses read-only arrays, which are copied."""
    return torch.from_numpy(np.require(values, np.float32, "W"))


def by_score(index_ref: Any, index_query: Any, scores: Any) -> Correspondences:
    """Correspondences by falling confidence; ties keep the order of the reference."""
    order = np.argsort(-scores, kind="stable")
    return Correspondences(
        np.asarray(index_ref[order], np.int32),
        np.asarray(index_query[order], np.int32),
        np.asarray(scores[order], np.float32),
    )
