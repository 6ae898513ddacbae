"""`bench --options`: the networks beside each other on the same pairs."""

from __future__ import annotations

import json

from superglue_ros.bench import options
from superglue_ros.cli import main


def test_every_network_is_timed_and_judged_beside_the_dense_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(options, "_PHOTOGRAPHS", ("coffee",))
    arguments = ["--options", "--keypoints", "96", "--rounds", "1", "--output", str(tmp_path)]
    assert main(["bench", *arguments]) == 0
    rows = json.loads((tmp_path / "options.json").read_text())
    assert [row["name"] for row in rows] == list(options.CHANGES)
    dense, *others = rows
    assert dense["over_dense"] == dense["right_over_dense"] == 1
    assert dense["precision"] > 0.8
    assert dense["matches"] > 30
    # 96 keypoints are fewer than the keys of top-k, and a single cluster.
    assert all(row["matches"] == dense["matches"] for row in others)
    assert all(min(row["assignment_seconds"], row["seconds"]) > 0 for row in rows)
    text = capsys.readouterr().out
    assert text == (tmp_path / "options.md").read_text()
    assert text.splitlines()[2].startswith("| 96 | dense | ")
