"""Precision and recall over the matches, by hand, written and read."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.evaluation.reports.confidence_curves import (
    CURVES,
    JudgedMatches,
    confidence_curves,
    draw_curves,
    read_curves,
    thresholds_of,
    write_curves,
)

PAIRS = [
    JudgedMatches(
        np.array([0.9, 0.6, 0.3]), np.array([True, True, False]), np.array([True, False, False]), 4
    ),
    JudgedMatches(np.array([0.5]), np.array([False]), np.array([False]), 2),
    JudgedMatches(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), 0),  # nothing to find
]


def test_the_curves_by_hand():
    found = confidence_curves(PAIRS, [0.0, 0.4, 0.8])
    np.testing.assert_allclose(found.matches, [4 / 3, 1, 1 / 3])
    np.testing.assert_allclose(found.correct, [2 / 3, 2 / 3, 1 / 3])
    np.testing.assert_allclose(found.precision, [100 * (2 / 3 + 0) / 2, 50, 100])
    np.testing.assert_allclose(found.recall, [100 * 0.25 / 2] * 3)
    assert thresholds_of(PAIRS)[0] == 0
    assert 0.5 < thresholds_of(PAIRS)[-1] < 0.9


def test_what_is_written_is_read_and_drawn(tmp_path):
    curves = confidence_curves(PAIRS, thresholds_of(PAIRS))
    write_curves(tmp_path, curves)
    found = read_curves(tmp_path)
    assert found is not None
    np.testing.assert_allclose(found.recall, curves.recall)
    np.testing.assert_allclose(found.threshold, curves.threshold)
    mark = {"a": confidence_curves(PAIRS, [0.5])}
    drawn = draw_curves(tmp_path, {"a": curves, "b": curves}, mark, ": under 10 px")
    assert [p.caption.split(" (")[0] for p in drawn] == [
        "Precision over matches", "Recall over matches"
    ]  # fmt: skip
    assert "under 10 px; ring" in drawn[0].caption
    assert all(p.path.stat().st_size > 5000 for p in drawn)
    assert read_curves(tmp_path / "nowhere") is None
    (tmp_path / CURVES).write_text("threshold\n1\n")
    with pytest.raises(DataError, match="does not hold curves"):
        read_curves(tmp_path)
