"""How long landmarks are followed over the frames of a recording, and how steadily.

A track is what the frames of a run say of one landmark: its pixel in every frame that sees it, the
refined ones. Nothing here needs ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.evaluation.bag.outcomes import FrameOutcome
from superglue_ros.types import NO_TRACK

Floats = NDArray[np.float64]
_FEW = 8  # tracks through three frames, to know how these frames moved


def track_figures(outcomes: Sequence[FrameOutcome]) -> dict[str, float]:
    """Figures of all tracks of a run; NaN where there are none.

    ``tracks``: landmarks seen in two frames or more; ``mean_track_frames``: frames in which such a
    landmark is seen; ``track_jitter_px``: see :func:`jitter`.
    """
    places = observations(outcomes)
    seen: dict[int, int] = {}
    for frame in places.values():
        for landmark in frame:
            seen[landmark] = seen.get(landmark, 0) + 1
    lengths = np.array([count for count in seen.values() if count > 1], np.float64)
    return {
        "tracks": float(len(lengths)),
        "mean_track_frames": float(lengths.mean()) if len(lengths) else float("nan"),
        "track_jitter_px": jitter(list(places.values())),
    }


def observations(outcomes: Sequence[FrameOutcome]) -> dict[int, dict[int, Floats]]:
    """The pixel (2,) of every landmark in every frame, by the numbers of frame and landmark.

    A frame's first pair, with its reference, decides. A keyframe's own pixels are those at which
    later frames were matched to it.
    """
    places: dict[int, dict[int, Floats]] = {outcome.id: {} for outcome in outcomes}
    for outcome in outcomes:
        for pair in outcome.pairs:
            ids = _landmarks(pair.said)
            for frame, points in (
                (outcome.id, pair.points_query),
                (pair.reference_id, pair.points_ref),
            ):
                own = places.setdefault(frame, {})
                for k in np.flatnonzero(ids != NO_TRACK):
                    own.setdefault(int(ids[k]), points[k].astype(np.float64))
    return places


def jitter(frames: Sequence[dict[int, Floats]]) -> float:
    """Standard deviation [px] of a coordinate that is not explained by motion; NaN if unknown.

    In three consecutive frames the pixel of a landmark at rest is that of the middle frame plus
    equal steps, but for the change of motion, which near-by landmarks share: second differences are
    compared with the mean of the four nearest tracks through these frames. The median of what is
    left, scaled as for normal errors: sqrt(6) of one coordinate's, and sqrt(5/4) for the mean.
    """
    left: list[Floats] = []
    for first, middle, last in zip(frames, frames[1:], frames[2:], strict=False):
        shared = [one for one in middle if one in first and one in last]
        if len(shared) < _FEW:
            continue
        at = np.array([middle[one] for one in shared])
        second = np.array([first[one] - 2 * middle[one] + last[one] for one in shared])
        apart = np.linalg.norm(at[:, None] - at[None], axis=2)
        nearest = np.argsort(apart, axis=1, kind="stable")[:, 1:5]
        left.append((second - second[nearest].mean(axis=1)).ravel())
    if not left:
        return float("nan")
    spread = 1.4826 * np.median(np.abs(np.concatenate(left)))
    return float(spread / np.sqrt(6 * 1.25))


def _landmarks(said: Any) -> NDArray[np.int64]:
    """(K,) the landmark of each match of a pair; -1 where there is none."""
    return np.zeros(0, np.int64) if said is None else np.asarray(said.matches.track_ids)
