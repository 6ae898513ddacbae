"""Curves over time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from superglue_ros.drawing.plots import plot_over_time


def test_gaps_and_infinities_do_not_stop_a_plot(tmp_path: Path) -> None:
    seconds = np.arange(5.0)
    values = np.array([1.0, np.nan, 2.0, np.inf, 3.0])
    curves = {
        "error [deg]": {"a": (seconds, values), "b": (seconds[:3], 2 * values[:3])},
        "n": {"c": (seconds, seconds)},
    }
    for name in ("p.png", "q.png"):
        plot_over_time(tmp_path / name, "errors", curves)
    image = cv2.imread(str(tmp_path / "p.png"))
    assert image is not None
    assert (image < 128).any(axis=2).sum() > 500  # axes and text are drawn
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()


def test_nothing_finite(tmp_path: Path) -> None:
    curves = {"x": {"a": (np.arange(3.0), np.full(3, np.nan))}}
    plot_over_time(tmp_path / "p.png", "none", curves)
    assert (tmp_path / "p.png").stat().st_size > 1000
