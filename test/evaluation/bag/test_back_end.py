"""``evaluate bag --back-end``: one command from a recording to trajectories and their errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from superglue_ros.back_end.round_trip import RoundTripSequence
from superglue_ros.cli import main
from superglue_ros.data.bag_sequences import SequenceTopics, write_bag
from superglue_ros.data.trajectories import read_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bag.back_end import with_back_end


class Corner:
    """The first frames of the round trip in the rendered room."""

    name = "corner"

    def __init__(self, frames: int) -> None:
        self._trip, self._frames = RoundTripSequence(), frames

    def __len__(self) -> int:
        return self._frames

    def __iter__(self):
        return (self._trip[index] for index in range(self._frames))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("corner") / "bag"
    write_bag(Corner(6), folder, SequenceTopics())
    return folder


def evaluate(bag, output, *arguments: str) -> dict:
    method = ["--front-end", "sift", "--matcher", "ratio", "--max-keypoints", "400"]
    command = ["evaluate", "bag", str(bag), "--output", str(output), "--back-end"]
    assert main([*command, *method, *arguments]) == 0
    return json.loads((output / "summary.json").read_text())["back_end"]


def test_monocular_with_plots_report_and_trajectories(recording, tmp_path, capsys):
    found = evaluate(recording, tmp_path)
    assert not found["metric"]
    rows = found["trajectories"]
    assert set(rows) == {"relative poses", "back-end"}
    for row in rows.values():
        assert row["placed"] == 1.0
        assert 0 < row["ate_m"] < 0.03
        assert row["rpe_deg"] < 1.0
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000
    assert "Trajectories, aligned (similarity" in (tmp_path / "report.html").read_text()
    assert "back-end: ATE" in capsys.readouterr().out
    trajectory = read_trajectory(tmp_path / "back_end.tum")
    assert len(trajectory) == 6
    assert np.isfinite(trajectory.poses).all()


def test_with_depth_the_scale_is_right(recording, tmp_path):
    found = evaluate(recording, tmp_path, "--depth", SequenceTopics().depth, "--no-pictures")
    assert found["metric"]
    assert found["trajectories"]["back-end"]["scale"] == pytest.approx(1, abs=0.03)
    assert found["trajectories"]["back-end"]["ate_m"] < 0.02


def test_without_calibration_it_is_refused(tmp_path):
    class Uncalibrated:
        path, name, camera = tmp_path / "bag", "bag", None

    with pytest.raises(DataError, match="no calibration"):
        with_back_end([], Uncalibrated(), None, tmp_path)
