"""The report says what was measured, and the pure parts of the benchmark compute what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.bench.device import DeviceAgreement, PrecisionRow, StageRow
from superglue_ros.bench.floor import Rates, floor_seconds
from superglue_ros.bench.measure import (
    AgreementRow,
    ExtractRow,
    PairRow,
    WindowRow,
    compare,
)
from superglue_ros.bench.node import NodeRow, RateRow
from superglue_ros.bench.report import (
    BEGIN,
    BEGIN_RATES,
    END,
    END_RATES,
    MemoryRow,
    Results,
    summary,
    tables,
    write,
    write_rates,
)
from superglue_ros.bench.timing import Paired, paired
from superglue_ros.networks.superglue import SuperGlueConfig
from superglue_ros.types import Correspondences

RATES = Rates(100e9, 50e9, 10e9)


@pytest.fixture
def results() -> Results:
    pair = PairRow(1024, 0.5, 0.01, 0.03, 0.3, 80, 0.25, 1.5, 3.0, None, 400, True, 1e-5)
    large = PairRow(4096, 8.0, 0.1, 0.4, float("nan"), 100, 5.0, None, None, None, 9, None, None)
    return Results(
        "a processor",
        "torch 2",
        2,
        RATES,
        [pair, large],
        [WindowRow(1, 1024, 0.5, 0.8, 1.0, 1.0), WindowRow(8, 1024, 3.5, 3.8, 7.0, 4.75)],
        [ExtractRow("package's weights", 640, 480, 0.3, None, None)],
        [MemoryRow(4096, 400.0, 1000.0, None)],
        [AgreementRow(512, 200, True, 2e-6)],
        {"SuperGlue in bfloat16": "refused"},
        {},
        NodeRow(10, 640, 480, 512, 0.108, 0.1, 0.008, 0.009),
    )


def test_summary_has_ratios_by_keypoints(results):
    values = summary(results)
    assert values["ratio_vs_transformers"] == {"1024": 3.0, "4096": None}
    assert values["ratio_to_floor"] == {"1024": 2.0, "4096": 1.6}
    assert values["node"]["overhead"] == 0.008


def test_tables_show_every_measurement_with_its_unit(results):
    text = tables(results)
    assert "| 1024 | 500 ms | 2.00 | 30.0 ms (80 iterations) | 300 ms | 1500 ms | 3.00 |" in text
    assert "| 8 | 1024 | 3500 ms | 7.00 | 3800 ms | 4.75 |" in text
    assert "| 4096 | 400 MiB | 1000 MiB | - |" in text
    assert "the same index set in 1 of 1, 200 matches, scores within 2.0e-06" in text
    assert "The node adds 8.0 ms (median; 90th percentile 9.0 ms)" in text


def test_a_gpu_has_tables_of_its_own(results):
    lower = PrecisionRow(
        precision="bfloat16",
        keypoints=1024,
        pair_seconds=0.002,
        eight_seconds=0.009,
        floor_seconds=0.001,
        common=0.985,
    )
    text = tables(
        replace(
            results,
            stages=[StageRow("encoding of a set", 2e-4, None)],
            lower=[lower],
            on_device=DeviceAgreement(5, 900, 0.995, 0.98),
        )
    )
    assert "| encoding of a set | 0.2 ms | - |" in text
    assert "| bfloat16 | 1024 | 2.0 ms | 9.0 ms | 1.0 ms | 2.00 | 98.5 % |" in text
    assert "99.5 % of 900 matches of the same features in common, 98.0 % of the keypoints" in text
    assert "encoding of a set" not in tables(results)


def test_document_keeps_what_stands_around_the_tables(results, tmp_path):
    document = tmp_path / "docs" / "performance.md"
    document.parent.mkdir()
    document.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    for _ in range(2):
        write(results, tmp_path / "out", document)
    text = document.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("More.\n")
    assert text.count(BEGIN) == text.count(END) == text.count("### SuperPoint") == 1
    assert "old" not in text
    saved = json.loads((tmp_path / "out/summary.json").read_text())
    assert saved["pairs"][1]["log_domain_seconds"] is None
    for folder in ("docs", "out"):
        assert (tmp_path / folder / "performance.png").stat().st_size > 5000


def test_floor_counts_the_operations_of_the_issue():
    one = Rates(1.0, 1.0, float("inf"))
    operations = floor_seconds(SuperGlueConfig(), 1024, 1024, one)
    # 2 images, 18 layers, (10 N D^2 + 2 N^2 D) multiply-adds: 87 billion operations, 1% around.
    assert operations == pytest.approx(87e9, rel=0.02)


def test_ratios_are_of_paired_rounds():
    times = Paired({"a": [2.0, 4.0, 30.0], "b": [1.0, 2.0, 3.0]})
    assert times.median("a") == 4.0
    assert times.best("b") == 1.0
    assert times.ratio("a", "b") == 2.0


def test_contenders_take_turns_and_the_first_round_does_not_count():
    calls: list[str] = []
    times = paired({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert len(times.seconds["a"]) == len(times.seconds["b"]) == 3


def test_comparison_of_index_sets():
    found = Correspondences(
        np.array([0, 2], np.int32), np.array([1, 0], np.int32), np.array([0.9, 0.5], np.float32)
    )
    scores = torch.tensor([0.9, 0.0, 0.52])
    same, difference = compare(found, torch.tensor([1, -1, 0]), scores)
    assert same
    assert difference == pytest.approx(0.02, abs=1e-6)
    assert not compare(found, torch.tensor([1, 2, 0]), scores)[0]


def test_rates_take_their_own_place_in_the_document(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text(f"above\n{BEGIN}\nother\n{END}\n{BEGIN_RATES}\nold\n{END_RATES}\nbelow\n")
    rows = [
        RateRow(
            weights="small", precision="float32", overlap="never", keypoints=512, keyframes=4,
            rate=3.25, median=0.31, p95=0.4, frames=20,
        ),
        RateRow(
            weights="wide", precision="bfloat16", overlap="never", keypoints=1024, keyframes=1,
            rate=None,
        ),
    ]  # fmt: skip
    write_rates("a processor", rows, tmp_path / "out", document)
    text = document.read_text()
    assert text.startswith(
        f"above\n{BEGIN}\nother\n{END}\n{BEGIN_RATES}\n\nMeasured on: a processor."
    )
    assert "| small | float32 | never | 512 | 4 | 3.2 | 310 ms | 400 ms | 20 |" in text
    assert "| wide | bfloat16 | never | 1024 | 1 | none held | - | - | - |" in text
    assert text.endswith(f"|\n\n{END_RATES}\nbelow\n")
    assert "old" not in text
    assert json.loads((tmp_path / "out" / "rates.json").read_text())["rates"][1]["rate"] is None
