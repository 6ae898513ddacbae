"""Public benchmarks on tiny copies in their layouts: read, evaluated, and the best threshold."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.cli import main
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.benchmarks import (
    HPATCHES_LEFT_OUT,
    benchmark_pairs,
    best_thresholds,
)
from superglue_ros.evaluation.pairs.homography import hpatches_cases
from superglue_ros.evaluation.pairs.pairs_file import read_pairs
from superglue_ros.geometry.dlt import dlt_homography

from .conftest import PointScene, texture


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """``pairs_calibrated.txt`` as glue-factory's archives have it: R and t, and once all of T."""
    scene = PointScene()
    poses = [scene.pose(0, (0, 0, 0)), scene.pose(8, (0.5, 0.1, 0.0)), scene.pose(-6, (-0.6, 0, 0))]
    for index, pose in enumerate(poses):
        scene.write(tmp_path, f"{index}.png", pose)
    k = " ".join(f"{v:.9g}" for v in scene.intrinsics.ravel())
    lines = []
    for index in (1, 2):
        transform = poses[index] @ np.linalg.inv(poses[0])
        numbers = (
            [*transform[:3, :3].ravel(), *transform[:3, 3]] if index == 1 else transform.ravel()
        )
        lines.append(f"0.png {index}.png {k} {k} " + " ".join(f"{v:.9g}" for v in numbers))
    (tmp_path / "pairs_calibrated.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_pairs_of_glue_factory_have_the_pose_in_either_form(calibrated):
    scene = PointScene()
    first, second = read_pairs(calibrated / "pairs_calibrated.txt")
    np.testing.assert_allclose(first.transform, scene.pose(8, (0.5, 0.1, 0.0)), atol=1e-8)
    np.testing.assert_allclose(second.transform, scene.pose(-6, (-0.6, 0, 0)), atol=1e-8)
    np.testing.assert_allclose(second.intrinsics1, scene.intrinsics)
    assert (first.name1, first.rot0, first.rot1) == ("1.png", 0, 0)
    assert benchmark_pairs(calibrated)[1] == calibrated / "images"


@pytest.mark.parametrize("name", ["megadepth1500", "scannet1500"])
def test_relative_poses_at_the_best_of_the_thresholds(calibrated, tmp_path, capsys, name):
    output = tmp_path / "out"
    command = ["evaluate", "benchmark", name, "--data", str(calibrated), "--output", str(output)]
    command += ["--keypoints", str(calibrated / "keypoints"), "--matcher", "mutual"]
    command += ["--front-end", "sift"]
    assert main([*command, "--estimator-threshold", "0.5", "2", "--no-pictures"]) == 0
    table = (output / "benchmark.md").read_text()
    assert table in capsys.readouterr().out
    assert "| AUC@5 | AUC@10 | AUC@20 | P | keypoints | matches |" in table
    rows = [row for row in table.splitlines() if "px" in row]
    assert ["opencv-ransac" in row for row in rows] == [True, False]
    assert float(rows[1].split("|")[2]) > 95
    config = json.loads((output / "config.json").read_text())
    front_end = config["method"]["front_end"]
    assert (front_end["max_keypoints"], front_end["nms_radius"]) == (2048, 3)
    assert config["protocol"]["max_size"] == (1600 if name == "megadepth1500" else 640)
    names = [one["name"] for one in config["protocol"]["estimators"]]
    assert names == ["opencv-ransac@0.5", "opencv-ransac@2", "poselib@0.5", "poselib@2"]


def test_scene_files_of_loftr(tmp_path):
    scene = PointScene()
    poses = np.array([scene.pose(0, (0, 0, 0)), np.eye(4), scene.pose(8, (0.5, 0.1, 0.0))])
    paths = np.array(["a/0.jpg", None, "a/2.jpg"], object)
    infos = np.empty(1, object)
    infos[0] = ((0, 2), 0.3, None)
    folder = tmp_path / "megadepth_test_1500_scene_info"
    folder.mkdir()
    arrays = {"image_paths": paths, "depth_paths": paths, "poses": poses, "pair_infos": infos}
    np.savez(folder / "0015.npz", intrinsics=np.stack([scene.intrinsics] * 3), **arrays)
    pairs, images = benchmark_pairs(tmp_path)
    assert (pairs[0].name0, pairs[0].name1, images) == ("a/0.jpg", "a/2.jpg", tmp_path)
    np.testing.assert_allclose(pairs[0].transform, poses[2] @ np.linalg.inv(poses[0]), atol=1e-12)
    infos[0] = ((0, 1), 0.3, None)
    np.savez(folder / "0015.npz", intrinsics=np.stack([scene.intrinsics] * 3), **arrays)
    with pytest.raises(DataError, match="is no pair of its images"):
        benchmark_pairs(tmp_path)


def test_other_folders_are_refused(calibrated, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"it needs pairs_calibrated\.txt \(glue-factory\)"):
        benchmark_pairs(tmp_path / "nothing")
    (calibrated / "images" / "0.png").unlink()
    with pytest.raises(DataError, match=r"has no image 0\.png"):
        benchmark_pairs(calibrated)


@pytest.fixture
def hpatches(tmp_path: Path) -> Path:
    """Two sequences of 720x960 pixels under a known homography, and one that tables leave out."""
    image = cv2.cvtColor(texture(720, 960), cv2.COLOR_GRAY2BGR)
    homography = np.array([[1.02, 0.03, 5.0], [-0.02, 0.99, 8.0], [1e-5, 2e-5, 1.0]])
    warped = cv2.warpPerspective(image, homography, (960, 720))
    for name in ("v_one", "i_two", HPATCHES_LEFT_OUT[0]):
        folder = tmp_path / "hpatches" / name
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "1.ppm"), image)
        cv2.imwrite(str(folder / "2.ppm"), warped)
        np.savetxt(folder / "H_1_2", homography)
    return tmp_path / "hpatches"


def test_homographies_of_resized_images_are_those_between_them(hpatches):
    cases = hpatches_cases(hpatches, 480, HPATCHES_LEFT_OUT)
    assert [case.group for case in cases] == ["illumination", "viewpoint"]
    assert cases[0].image(0).shape == (480, 640)
    (whole,) = {tuple(c.homography().ravel()) for c in hpatches_cases(hpatches)}
    point = np.array([300.0, 200, 1])
    there = np.array(whole).reshape(3, 3) @ point
    half = cases[0].homography() @ [(300 + 0.5) * 2 / 3 - 0.5, (200 + 0.5) * 2 / 3 - 0.5, 1]
    np.testing.assert_allclose(
        half[:2] / half[2] + 0.5, (there[:2] / there[2] + 0.5) * 2 / 3, atol=1e-9
    )


def test_homographies_by_dlt_and_both_estimators(hpatches, tmp_path):
    output = tmp_path / "out"
    command = [
        "evaluate",
        "benchmark",
        "hpatches",
        "--data",
        str(hpatches),
        "--output",
        str(output),
    ]
    command += ["--front-end", "sift", "--matcher", "ratio", "--estimator-threshold", "0.5", "1"]
    assert main(command) == 0
    rows = (output / "benchmark.md").read_text().splitlines()
    assert rows[0].startswith("| method | AUC@1 | AUC@3 | AUC@5 |")
    assert [row.split(",")[1].split("|")[0].split()[0] for row in rows[2:]] == [
        "DLT", "opencv-ransac", "poselib"
    ]  # fmt: skip
    assert float(rows[4].split("|")[4]) > 90
    summary = json.loads((output / "summary.json").read_text())
    assert summary["pairs"] == 2
    assert summary["groups"]["viewpoint"]["estimators"]["poselib@1"]["failures"] == 0
    assert len((output / "estimates.csv").read_text().splitlines()) == 1 + 2 * 4


def test_confidences_weigh_in_the_direct_linear_transform():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (20, 2))
    moved = points + np.array([5, -3])
    moved[0] += 40
    weights = np.r_[0.0, np.ones(19)]
    found = dlt_homography(points, moved, weights)
    np.testing.assert_allclose(found / found[2, 2], [[1, 0, 5], [0, 1, -3], [0, 0, 1]], atol=1e-9)
    assert np.abs(dlt_homography(points, moved) - found).max() > 1e-3


def test_the_best_threshold_has_the_largest_mean_area():
    parts = {
        "a@0.5": {"auc": {"5": 50.0, "10": 60.0}},
        "a@1": {"auc": {"5": 52.0, "10": 59.0}},
        "b@1": {"auc": {"5": 1.0, "10": 2.0}},
    }
    found = best_thresholds({"estimators": parts}, (5, 10))
    assert found == {"a": (1.0, {"5": 52.0, "10": 59.0}), "b": (1.0, {"5": 1.0, "10": 2.0})}
