"""The commands from end to end on small data, as a user runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.evaluation.reports.results import read_results


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *(str(a) for a in arguments)])


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def pose_arguments(scene: Path, output: Path, *more: object) -> tuple[object, ...]:
    return (
        "pose", "--pairs", scene / "pairs.txt", "--images", scene / "images",
        "--keypoints", scene / "keypoints",
        "--matcher", "mutual", "--output", output, *more,
    )  # fmt: skip


@pytest.mark.parametrize("estimator", ["opencv-ransac", "usac-magsac", "poselib"])
def test_exact_keypoints_give_exact_poses_also_of_turned_images(point_scene, tmp_path, estimator):
    output = tmp_path / "out"
    assert evaluate(*pose_arguments(point_scene, output, "--estimator", estimator)) == 0
    numbers = summary(output)
    assert numbers["pairs"] == 3
    assert numbers["auc"]["5"] > 95
    assert numbers["precision"] == 100
    assert 0 < numbers["matching_score"] <= 100
    assert numbers["auc_signed_direction"]["20"] > 95
    for name in ("config.json", "versions.json", "timing.json", "report.html", "records.csv"):
        assert (output / name).stat().st_size > 0
    page = (output / "report.html").read_text()
    assert "data:image/" in page
    assert "http" not in page
    config = json.loads((output / "config.json").read_text())
    assert [e["name"] for e in config["protocol"]["estimators"]] == [estimator]


def test_equal_runs_write_equal_bytes_and_use_the_kept_predictions(point_scene, tmp_path):
    for name in ("one", "two"):
        evaluate(*pose_arguments(point_scene, tmp_path / name, "--no-pictures"))
    for file in ("summary.json", "records.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    before = (tmp_path / "one" / "predictions" / "000000.npz").stat().st_mtime_ns
    evaluate(*pose_arguments(point_scene, tmp_path / "one", "--no-pictures"))
    assert (tmp_path / "one" / "predictions" / "000000.npz").stat().st_mtime_ns == before


def test_a_changed_setting_is_refused_and_another_estimator_is_not(point_scene, tmp_path, capsys):
    output = tmp_path / "out"
    evaluate(*pose_arguments(point_scene, output, "--no-pictures"))
    again = pose_arguments(point_scene, output, "--no-pictures", "--max-keypoints", "20")
    assert evaluate(*again) == 1
    assert "max_keypoints: 1024 became 20" in capsys.readouterr().err
    assert evaluate(*again, "--overwrite") == 0
    assert evaluate(*again, "--estimator", "poselib") == 0


def test_missing_images_are_listed_and_counted(point_scene, tmp_path, capsys):
    (point_scene / "images" / "c.png").write_bytes(b"no image")
    output = tmp_path / "out"
    assert evaluate(*pose_arguments(point_scene, output)) == 0
    printed = capsys.readouterr().out
    assert "2 pairs were left out" in printed
    assert "c.png cannot be read" in printed
    assert summary(output)["missing_pairs"] == 2
    assert summary(output)["pairs"] == 1
    for name in ("a.png", "b.png"):
        (point_scene / "images" / name).unlink()
    assert evaluate(*pose_arguments(point_scene, tmp_path / "none")) == 1
    assert "none of 3 pairs" in capsys.readouterr().err


def test_no_matches_count_as_failure(point_scene, tmp_path):
    for file in (point_scene / "keypoints").glob("*.npz"):
        np.savez(file, keypoints=np.zeros((0, 2)), descriptors=np.zeros((0, 32)), detector="points")
    evaluate(*pose_arguments(point_scene, tmp_path / "out"))
    numbers = summary(tmp_path / "out")
    assert numbers["failures"] == 3
    assert numbers["auc"]["20"] == 0
    assert numbers["precision"] == 0


def homography_arguments(photographs: Path, output: Path, *more: object) -> tuple[object, ...]:
    return (
        "homography", "--images", photographs, "--pairs", 3, "--front-end", "sift",
        "--matcher", "ratio", "--output", output, *more,
    )  # fmt: skip


def test_homographies_of_textured_pictures(photographs, tmp_path):
    output = tmp_path / "out"
    evaluate(*homography_arguments(photographs, output, "--no-photometric"))
    numbers = summary(output)
    assert numbers["precision"] > 85
    assert numbers["ransac_auc"]["10"] > 60
    assert numbers["pairs"] == 3
    assert len(list((output / "pictures").iterdir())) >= 4
    rows = list(csv.DictReader((output / "records.csv").open()))
    assert [row["name0"] for row in rows] == ["0.png#0.0", "1.png#1.0", "0.png#2.0"]
    # Another seed is another set of pairs.
    assert evaluate(*homography_arguments(photographs, output, "--seed", 1)) == 1


def test_the_ranges_of_the_homographies_are_options(photographs, tmp_path, capsys):
    output = tmp_path / "out"
    still = ("--perspective", 0, "--rotation", 0, "--scale", 1, 1, "--translation", 0)
    options = (*still, "--min-overlap", 0.5, "--no-photometric", "--no-pictures")
    evaluate(*homography_arguments(photographs, output, *options))
    numbers = summary(output)
    assert (numbers["precision"], numbers["recall"]) == (100, 100)  # twice the same view
    assert numbers["mean_distance_px"] < 0.01
    recipe = json.loads((output / "config.json").read_text())["data"]["recipe"]
    assert (recipe["rotation_deg"], recipe["scale"]) == (0, [1, 1])
    for wrong, message in (
        (("--scale", 2, 1), "scale must be two positive numbers, low before high, not 2.0 1.0"),
        (("--rotation", -5), "rotation_deg must be at least 0, not -5.0"),
    ):
        assert evaluate(*homography_arguments(photographs, tmp_path / "no", *wrong)) == 1
        assert message in capsys.readouterr().err


def test_an_image_list_picks_and_a_missing_one_is_told(photographs, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("# chosen\n1.png\nnowhere.png\n")
    output = tmp_path / "out"
    options = ("--image-list", tmp_path / "list.txt", "--no-pictures")
    evaluate(*homography_arguments(photographs, output, *options))
    assert summary(output)["pairs"] == 2
    assert "nowhere.png does not exist" in capsys.readouterr().out


def test_hpatches_layout_has_its_two_groups(photographs, tmp_path):
    root = tmp_path / "hpatches"
    picture = cv2.imread(str(photographs / "0.png"))  # a .ppm holds three channels
    shift = np.array([[1, 0, 12.0], [0, 1, -7], [0, 0, 1]])
    for name in ("v_one", "i_two"):
        (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / name / "1.ppm"), picture)
        for k in range(2, 7):
            moved = cv2.warpPerspective(picture, shift, (480, 360))
            cv2.imwrite(str(root / name / f"{k}.ppm"), moved if name[0] == "v" else picture)
            np.savetxt(root / name / f"H_1_{k}", shift if name[0] == "v" else np.eye(3))
    output = tmp_path / "out"
    evaluate(
        "homography", "--hpatches", root, "--front-end", "sift", "--matcher", "mutual",
        "--output", output, "--no-pictures",
    )  # fmt: skip
    groups = summary(output)["groups"]
    assert groups["viewpoint"]["pairs"] == groups["illumination"]["pairs"] == 5
    assert groups["illumination"]["precision"] > 95
    assert groups["viewpoint"]["precision"] > 90
    assert evaluate("homography", "--hpatches", tmp_path / "no", "--output", output) == 1


def test_comparison_puts_runs_side_by_side(point_scene, photographs, tmp_path, capsys):
    evaluate(*pose_arguments(point_scene, tmp_path / "d" / "a", "--no-pictures"))
    evaluate(*pose_arguments(point_scene, tmp_path / "d" / "b", "--no-pictures", "--label", "B"))
    assert evaluate("compare", tmp_path / "d/a", tmp_path / "d/b", "--output", tmp_path / "c") == 0
    table = (tmp_path / "c" / "comparison.md").read_text()
    assert table in capsys.readouterr().out
    assert "| B |" in table
    assert "+0.00 [+0.0, +0.0]" in table
    assert (tmp_path / "c" / "report.html").is_file()
    assert evaluate("compare", "--cross", tmp_path / "d/a", tmp_path / "d/b") == 0
    assert "| method | d |" in capsys.readouterr().out
    evaluate(*homography_arguments(photographs, tmp_path / "h", "--no-pictures"))
    assert evaluate("compare", tmp_path / "d/a", tmp_path / "h", "--output", tmp_path / "c") == 1
    assert "different kinds" in capsys.readouterr().err
    assert evaluate("compare", tmp_path / "nothing", "--output", tmp_path / "c") == 1
    assert "no finished result folder" in capsys.readouterr().err


def test_results_can_be_read_back(point_scene, tmp_path):
    evaluate(*pose_arguments(point_scene, tmp_path / "out", "--no-pictures", "--label", "mine"))
    results = read_results(tmp_path / "out")
    assert results.kind == "pose"
    assert results.label == "mine"
    assert results.column("pose_error_deg").max() < 1
