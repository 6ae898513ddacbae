"""Figures of tracks, on tracks whose length and jitter are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from superglue_ros.evaluation.bag.tracks import jitter, track_figures

RNG = np.random.default_rng(0)


def moving(noise_px: float, frames: int = 40) -> list[dict[int, np.ndarray]]:
    """200 landmarks under one accelerating motion, which hides no jitter and adds none."""
    start = RNG.uniform(0, 600, (200, 2))
    return [
        {
            landmark: place + [3.0 * k + 0.2 * k**2, -2.0 * k] + noise_px * RNG.standard_normal(2)
            for landmark, place in enumerate(start)
        }
        for k in range(frames)
    ]


@pytest.mark.parametrize("noise_px", [0.1, 0.5])
def test_jitter_is_the_noise_of_a_coordinate(noise_px: float) -> None:
    assert jitter(moving(noise_px)) == pytest.approx(noise_px, rel=0.05)


def test_without_tracks_there_are_no_figures() -> None:
    assert math.isnan(jitter([{}, {}, {}]))
    figures = track_figures([])
    assert figures["tracks"] == 0
    assert math.isnan(figures["mean_track_frames"])
