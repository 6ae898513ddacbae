"""The pictures of a run: matches on pairs of frames, and errors over time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.demo.results import PairResult, Results
from superglue_ros.drawing.matches import draw_matches, write_picture
from superglue_ros.drawing.plots import plot_over_time
from superglue_ros.types import MatchKind, PoseStatus

PAIRS_SHOWN = 4
_MAX_ERROR_PX = 5.0
_OLD_KEYFRAMES = (MatchKind.LOOP, MatchKind.RELOCALISE)
_Curve = tuple[NDArray, NDArray]


def draw_results(results: Results, sequence: BagSequence, folder: Path, title: str) -> list[Path]:
    """Write all pictures into ``folder`` as PNG; returns their paths."""
    paths = []
    shown = pairs_to_show(results.pairs)
    stamps = {frame.stamp_ns for p in shown for frame in (p.matches.reference, p.matches.query)}
    images = sequence.images_at(stamps)
    for number, pair in enumerate(shown, start=1):
        ref = images.get(pair.matches.reference.stamp_ns)
        query = images.get(pair.matches.query.stamp_ns)
        if ref is None or query is None:
            continue
        paths.append(folder / f"matches_{number}.png")
        write_picture(paths[-1], draw_matches(ref, query, pair.matches, caption=_caption(pair)))
        if pair.epipolar_px is not None and np.isfinite(pair.epipolar_px).any():
            paths.append(folder / f"epipolar_error_{number}.png")
            picture = draw_matches(
                ref, query, pair.matches, pair.epipolar_px, _MAX_ERROR_PX, _caption(pair)
            )
            write_picture(paths[-1], picture)
    if results.pairs:
        paths.append(folder / "errors_over_time.png")
        _plot(paths[-1], results.pairs, title)
    return paths


def pairs_to_show(pairs: tuple[PairResult, ...]) -> list[PairResult]:
    """For each quarter of the run, the pair with the longest time between its two frames.

    Pairs without a pose only if there are no others: most loop candidates fail.
    """
    if not pairs:
        return []
    quarters = np.array_split(np.arange(len(pairs)), min(PAIRS_SHOWN, len(pairs)))
    return [max((pairs[i] for i in quarter), key=_interest) for quarter in quarters]


def _interest(pair: PairResult) -> tuple[bool, float]:
    return pair.status in (PoseStatus.VALID, PoseStatus.PLANAR), _seconds_between(pair)


def _seconds_between(pair: PairResult) -> float:
    return (pair.matches.query.stamp_ns - pair.matches.reference.stamp_ns) * 1e-9


def _caption(pair: PairResult) -> list[str]:
    lines = [
        f"{len(pair.matches)} matches, {int(pair.matches.inlier.sum())} inliers, "
        f"{pair.status.name.lower().replace('_', ' ')}",
        f"{_seconds_between(pair):.2f} s apart"
        + (f", parallax {pair.parallax_deg:.1f} deg" if math.isfinite(pair.parallax_deg) else ""),
    ]
    errors = (("rotation", pair.rotation_error_deg), ("direction", pair.direction_error_deg))
    known = [f"{name} error {value:.2f} deg" for name, value in errors if math.isfinite(value)]
    return [*lines, ", ".join(known)] if known else lines


def _plot(path: Path, pairs: tuple[PairResult, ...], title: str) -> None:
    """Plot pairs with the newest keyframes and pairs with old ones (loops) separately."""
    start = pairs[0].matches.query.stamp_ns
    kinds = {
        "keyframe": [p for p in pairs if p.matches.kind not in _OLD_KEYFRAMES],
        "loop": [p for p in pairs if p.matches.kind in _OLD_KEYFRAMES],
    }

    def curves(name: str, value: Callable[[PairResult], float]) -> dict[str, _Curve]:
        return {
            f"{name}{kind}": (
                np.array([(p.matches.query.stamp_ns - start) * 1e-9 for p in chosen]),
                np.array([value(p) for p in chosen], np.float64),
            )
            for kind, chosen in kinds.items()
            if any(math.isfinite(value(p)) for p in chosen)
        }

    plots = {
        "rotation error [deg]": curves("", lambda p: p.rotation_error_deg),
        "direction error [deg]": curves("", lambda p: p.direction_error_deg),
        "matches": {
            **curves("matches, ", lambda p: len(p.matches)),
            **curves("inliers, ", lambda p: int(p.matches.inlier.sum())),
        },
        "parallax [deg]": curves("", lambda p: p.parallax_deg),
    }
    plot_over_time(
        path,
        f"{title}: frames against keyframes",
        {label: lines for label, lines in plots.items() if lines},
    )
