"""The commands from end to end on small data, as a user runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.evaluation.reports.compare import HEADLINES
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


def test_estimators_side_by_side_and_repeated_on_kept_predictions(point_scene, tmp_path, capsys):
    output = tmp_path / "out"
    evaluate(*pose_arguments(point_scene, output, "--no-pictures"))
    before = (output / "predictions" / "000000.npz").stat().st_mtime_ns
    options = ("--estimator", "poselib", "opencv-ransac", "--repeats", 3)
    capsys.readouterr()
    assert evaluate(*pose_arguments(point_scene, output, *options)) == 0
    assert (output / "predictions" / "000000.npz").stat().st_mtime_ns == before
    numbers = summary(output)
    assert list(numbers["estimators"]) == ["opencv-ransac", "poselib"]  # JSON sorts
    assert numbers["auc"] == numbers["estimators"]["poselib"]["auc"]  # the first one given
    for part in numbers["estimators"].values():
        assert part["auc"]["5"] > 95
        assert 0 <= part["auc_deviation"]["5"] < 5
    assert (numbers["recall"], numbers["f1"], numbers["ratio_to_mutual"]) == (100, 100, 1)
    rows = list(csv.DictReader((output / "estimates.csv").open()))
    assert len(rows) == 3 * 2 * 3
    assert {row["repeat"] for row in rows} == {"0", "1", "2"}
    repeated = read_results(output).repeated("pose_error_deg")
    assert repeated.shape == (3, 3)
    assert numbers["auc"]["20"] == pytest.approx(HEADLINES["pose"].value(repeated))
    printed = capsys.readouterr().out
    assert "right matches 1.00 of mutual's over 3 pairs (epipolar < 0.0005)" in printed
    assert printed.count("±") == 6
    assert "(poselib 1.0 px, seed 0, 3 repeats)" in printed
    assert "mean and standard deviation of 3 repeats" in (output / "report.html").read_text()
    assert evaluate("compare", output, output, "--output", tmp_path / "c") == 0
    header, _, row, *_ = (tmp_path / "c" / "comparison.md").read_text().splitlines()
    assert "AUC@5 poselib | AUC@10 poselib | AUC@20 poselib | AUC@5 opencv-ransac" in header
    assert len(row.split("|")) == len(header.split("|"))
    assert row.count("±") == 6


def test_wrong_protocols_name_the_option(point_scene, tmp_path, capsys):
    for options, message in (
        (("--repeats", 0), "--repeats must be at least 1, not 0"),
        (("--estimator", "poselib", "poselib"), "must name different estimators"),
        (("--reprojection-threshold", 3), "give --depth"),
        (("--depth", tmp_path / "no"), "does not exist"),
    ):
        assert evaluate(*pose_arguments(point_scene, tmp_path / "no_out", *options)) == 1
        assert message in capsys.readouterr().err


def test_matches_are_judged_by_depth_where_a_sequence_has_it(tmp_path, capsys):
    """A wall at 2 m and a camera that moves 0.2 m aside: x moves by 100 * 0.2 / 2 = 10 px."""
    # Spaced so that a wrong one, 20 px off, is more than 5 px from the place of any other.
    x, y = np.meshgrid(12 + 13 * np.arange(6), 10 + 6 * np.arange(10))
    keypoints = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    (tmp_path / "keypoints").mkdir()
    for k, shift in enumerate((0, 10)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((80, 100), 127, np.uint8))
        cv2.imwrite(str(tmp_path / f"{k}d.png"), np.full((80, 100), 2000, np.uint16))
        moved = keypoints + np.float32([shift, 0])
        if k == 1:
            moved[:15, 0] -= 20  # wrong, though on the epipolar line
        np.savez(
            tmp_path / "keypoints" / f"{k}.png.npz",
            keypoints=moved, descriptors=np.eye(60), detector="points",
        )  # fmt: skip
    (tmp_path / "images.txt").write_text("0 0.png 0d.png\n1 1.png 1d.png\n")
    (tmp_path / "intrinsics.txt").write_text("100 80 100 100 50 40\n")
    (tmp_path / "groundtruth.tum").write_text("0 0 0 0 0 0 0 1\n1 -0.2 0 0 0 0 0 1\n")
    pairs, output = tmp_path / "pairs.txt", tmp_path / "out"
    assert evaluate("make-pairs", tmp_path, "--gap", 1, "--output", pairs) == 0
    common = (
        "pose", "--pairs", pairs, "--images", tmp_path, "--keypoints", tmp_path / "keypoints",
        "--matcher", "mutual", "--output", output,
    )  # fmt: skip
    assert evaluate(*common) == 0
    assert summary(output)["precision"] == 100
    assert evaluate(*common, "--depth", tmp_path) == 0
    assert summary(output)["precision"] == 75
    assert summary(output)["recall"] == 100
    assert "(reprojection < 5 px)" in capsys.readouterr().out
    # A limit that the wrong ones keep to: they are 20 px off.
    assert evaluate(*common, "--depth", tmp_path, "--reprojection-threshold", 21) == 0
    assert summary(output)["precision"] == 100


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
