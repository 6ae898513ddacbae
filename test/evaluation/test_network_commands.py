"""``evaluate ablation``, ``attention`` and ``timing`` as a user runs them, on a small network."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from superglue_ros.cli import main
from superglue_ros.evaluation.pairs.ablation import VARIANTS
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
    initialise_as_optimal_matching,
)
from superglue_ros.networks.weights import load_superglue, save

CONFIG = SuperGlueConfig(
    descriptor_dim=32, width=32, layers=2, heads=2, keypoint_encoder=(8,)
)  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that matches by descriptor alone and attends to all keypoints equally."""
    torch.manual_seed(0)
    network = SuperGlue(CONFIG).eval()
    initialise_as_optimal_matching(network, scale=20.0)
    with torch.no_grad():
        network.dustbin.fill_(15)  # a point scores 20 with itself, below 15 with any other
        for layer in network.gnn:
            layer.qkv.weight.zero_()
            layer.qkv.bias.zero_()
    file = tmp_path / "small.safetensors"
    save(network, file, "points", "small")
    return file


def evaluate(what: str, scene: Path, output: Path, *more: object) -> int:
    arguments = (
        what, "--pairs", scene / "pairs.txt", "--images", scene / "images",
        "--keypoints", scene / "keypoints", "--device", "cpu", "--output", output, *more,
    )  # fmt: skip
    return main(["evaluate", *(str(a) for a in arguments)])


def first_cells(text: str) -> list[str]:
    """First column of the markdown table in ``text``, below its header."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def test_ablation_writes_a_row_for_each_variant_in_the_order_of_table_4(
    point_scene, weights, tmp_path, capsys
):
    output = tmp_path / "out"
    options = ("--knock-out", "--superglue", weights, "--no-pictures")
    assert evaluate("ablation", point_scene, output, *options) == 0
    printed = capsys.readouterr().out
    titles = ["NN + mutual", *(one.title for one in VARIANTS)]
    assert first_cells(printed) == titles
    table = (output / "comparison.md").read_text()
    assert first_cells(table) == titles
    assert table in printed
    assert "no weights for" not in printed
    for key in ("mutual", *(one.key for one in VARIANTS)):
        summary = json.loads((output / key / "summary.json").read_text())
        # Descriptors tell the points apart, and no part that is switched off had any effect.
        assert summary["pairs"] == 3
        assert summary["auc"]["5"] > 95
        assert summary["precision"] == 100
    for one in VARIANTS:
        made = load_superglue(output / "weights" / f"{one.key}.safetensors").network.config
        assert made == one.apply(CONFIG)


def test_ablation_says_how_to_train_the_variants_that_are_missing(
    point_scene, weights, tmp_path, capsys
):
    folder = tmp_path / "trained"
    folder.mkdir()
    output = tmp_path / "out"
    options = ("--checkpoints", folder, "--no-pictures")
    assert evaluate("ablation", point_scene, output, *options) == 1
    error = capsys.readouterr().err
    assert str(folder) in error
    assert "no-gnn, no-cross-attention, no-position, smaller, full" in error

    bare = SuperGlue(VARIANTS[0].apply(CONFIG)).eval()
    initialise_as_optimal_matching(bare)
    save(bare, folder / "no-gnn.safetensors", "points", "bare")
    assert evaluate("ablation", point_scene, output, *options) == 0
    printed = capsys.readouterr().out
    assert first_cells(printed) == ["NN + mutual", "No Graph Neural Net"]
    assert [line for line in printed.splitlines() if line.startswith("no weights for")] == [
        "no weights for no-cross-attention: train it with network.cross_attention: false",
        "no weights for no-position: train it with network.keypoint_encoder: []",
        "no weights for smaller: train it with network.layers: a third of the full network's",
        "no weights for full: train it with the network settings of the recipe as they are",
    ]


def uniform_spans(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Spans [px] of attention to all keypoints equally, over pairs matched by descriptor."""
    out: dict[str, list[float]] = {"self": [], "cross": []}
    for names in pairs:
        points, descriptors, mean = [], [], []
        for name in names:
            stored = np.load(folder / f"{name}.npz")
            points.append(stored["keypoints"])
            descriptors.append(stored["descriptors"])
            gaps = np.linalg.norm(points[-1][:, None] - points[-1][None], axis=2)
            mean.append(gaps.mean(axis=1))
        same = (descriptors[0][:, None] == descriptors[1][None]).all(axis=2)
        i, j = np.nonzero(same)
        out["self"].append((mean[0].mean() + mean[1].mean()) / 2)
        out["cross"].append((mean[0][i].mean() + mean[1][j].mean()) / 2)
    return {kind: float(np.mean(values)) for kind, values in out.items()}


def test_attention_measures_spans_in_pixels(point_scene, weights, tmp_path, capsys):
    output = tmp_path / "out"
    options = ("--superglue", weights, "--count", 1)
    assert evaluate("attention", point_scene, output, *options) == 0
    expected = uniform_spans(point_scene / "keypoints", [("a.png", "b.png")])
    rows = list(csv.DictReader((output / "spans.csv").open()))
    assert [(row["kind"], row["layer"]) for row in rows] == [
        ("self", "1"), ("self", "2"), ("cross", "1"), ("cross", "2"),
    ]  # fmt: skip
    for row in rows:
        assert float(row["span_px"]) == pytest.approx(expected[row["kind"]], rel=1e-3)
        assert float(row["half_width_px"]) == 0  # one pair
    assert capsys.readouterr().out.splitlines() == [
        f"{kind}-attention span [px] per layer: {value:.0f} {value:.0f}"
        for kind, value in expected.items()
    ]
    assert json.loads((output / "config.json").read_text())["pairs"] == 1
    for name in ("rays_self.jpg", "rays_cross.jpg"):
        picture = cv2.imread(str(output / "pictures" / name)).astype(int)
        assert (np.ptp(picture, axis=2) > 60).any()  # coloured rays on grey images
    assert (output / "pictures" / "spans.png").is_file()
    page = (output / "report.html").read_text()
    assert "Attention span [px]" in page
    assert f"{expected['cross']:.1f}" in page


def test_attention_of_variants_stands_side_by_side(point_scene, weights, tmp_path, capsys):
    """As `train ablation` leaves them; one has no attention weights, and says so."""
    runs = tmp_path / "runs"
    for name in ("full-0", "max-0"):
        (runs / name).mkdir(parents=True)
    (runs / "full-0" / "weights.safetensors").write_bytes(weights.read_bytes())
    pooled = SuperGlue(replace(CONFIG, aggregation="max")).eval()
    save(pooled, runs / "max-0" / "weights.safetensors", "points", "pooled")
    output = tmp_path / "out"
    options = ("--count", 1, "--variants", runs, weights)
    assert evaluate("attention", point_scene, output, *options) == 0
    table = (output / "variants.md").read_text()
    assert table == capsys.readouterr().out
    assert first_cells(table) == ["full-0", "max-0", "small"]
    expected = uniform_spans(point_scene / "keypoints", [("a.png", "b.png")])
    spans = f"| {expected['self']:.0f} {expected['self']:.0f} | {expected['cross']:.0f} "
    rows = table.splitlines()
    assert spans in rows[2]
    assert spans in rows[4]
    assert "no attention weights with aggregation max" in rows[3]
    for name in ("spans_self.png", "spans_cross.png", "full-0/pictures/rays_cross.jpg"):
        assert (output / name).stat().st_size > 1000
    assert evaluate("attention", point_scene, output, "--variants", tmp_path / "none") == 1
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--show", 3), "--show 3: there are pairs 0 to 2"),
        (("--matcher", "mutual"), "mutual has no attention: use --matcher superglue"),
        (("--superglue", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--pairs", "nowhere.txt"), "nowhere.txt"),
        (("--images", "nowhere"), "nowhere"),
    ],
)
def test_attention_refuses_what_it_cannot_show(
    point_scene, weights, tmp_path, capsys, options, message
):
    given = ("--superglue", weights, *options)
    assert evaluate("attention", point_scene, tmp_path / "out", *given) == 1
    assert message in capsys.readouterr().err


def test_timing_has_a_row_for_each_number_of_keypoints(weights, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = (
        "evaluate", "timing", "--superglue", weights, "--keypoints", 16, 512, "--repeat", 3,
        "--device", "cpu", "--output", output,
    )  # fmt: skip
    assert main([str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    stages = ["encode one image", "graph network", "optimal matching"]
    header = f"| keypoints | {' | '.join(stages)} | per pair | half of the pairs |"
    assert printed.splitlines()[0] == header
    assert first_cells(printed) == ["16", "512"]
    written = json.loads((output / "timing.json").read_text())
    assert written["keypoints"] == [16, 512]
    assert list(written["milliseconds"]) == stages
    few, many = written["milliseconds"]["optimal matching"]
    assert 0 < few < many  # a thousand times the pairs of keypoints
    for line, total in zip(
        printed.splitlines()[2:],
        np.sum([*written["milliseconds"].values()], axis=0),
        strict=True,
    ):
        assert float(line.split("|")[-3]) == pytest.approx(total, abs=0.051)
    low, high = written["quartiles"][1]
    assert 0 < low < high
    assert f"{low:.1f} to {high:.1f}" in printed.splitlines()[3]
    assert cv2.imread(str(output / "time_split.png")).std() > 1
    assert "2 x 2 layers of width 32" in (output / "report.html").read_text()


def test_timing_of_weights_that_do_not_exist_names_the_file(tmp_path, capsys):
    arguments = ["evaluate", "timing", "--superglue", "nowhere.safetensors", "--output"]
    assert main([*arguments, str(tmp_path / "out")]) == 1
    assert "nowhere.safetensors" in capsys.readouterr().err
