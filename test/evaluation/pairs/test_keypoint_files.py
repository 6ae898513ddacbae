from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.keypoint_files import read_keypoints
from superglue_ros.evaluation.pairs.methods import Method, MethodSpec
from superglue_ros.image_pairs.files import write_hloc
from superglue_ros.types import Features

h5py = pytest.importorskip("h5py")

POINTS = np.array([[1.5, 2.0], [30, 20], [12, 7]], np.float32)
SCORES = np.array([0.25, 1.0, 0.5], np.float32)
WORDS = np.arange(12, dtype=np.float32).reshape(3, 4) / 12


def assert_read(found, kind: str, scores=SCORES) -> None:
    np.testing.assert_array_equal(found.points, POINTS)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-3)
    np.testing.assert_allclose(found.descriptors, WORDS, rtol=1e-3)
    assert found.detector == kind


@pytest.mark.parametrize("network", ["d2-net", "r2d2"])
def test_archives_beside_the_images_as_d2_net_and_r2d2_write_them(tmp_path, network):
    """A third column is the scale; D2-Net's scores have no bound."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").write_bytes(b"the image itself")
    (tmp_path / "x" / "a.jpg2").write_bytes(b"of another image")
    arrays = {"keypoints": np.c_[POINTS, [4, 8, 16]], "scores": 7 * SCORES, "descriptors": WORDS}
    if network == "r2d2":
        arrays["imsize"] = np.array([640, 480])
    with (tmp_path / "x" / f"a.jpg.{network}").open("wb") as file:
        np.savez(file, **arrays)
    assert_read(read_keypoints(tmp_path, "x/a.jpg"), network)
    assert_read(read_keypoints(tmp_path / f"*.{network}", "x/a.jpg"), network)
    (tmp_path / "x" / "a.jpg.other").write_bytes(b"")
    with pytest.raises(DataError, match=r"several files of keypoints \(a\.jpg\."):
        read_keypoints(tmp_path, "x/a.jpg")
    assert_read(read_keypoints(tmp_path / f"*.{network}", "x/a.jpg"), network)
    with pytest.raises(DataError, match=r"no keypoints for image x/b\.jpg: neither"):
        read_keypoints(tmp_path / f"*.{network}", "x/b.jpg")


def test_hdf5_beside_the_images_as_contextdesc_and_geodesc_write_it(tmp_path):
    with h5py.File(tmp_path / "a.jpg.contextdesc-upright.hdf5", "w") as file:
        file["keypoints"], file["descriptors"] = POINTS, WORDS
    assert_read(read_keypoints(tmp_path, "a.jpg"), "contextdesc-upright.hdf5", np.ones(3))


def test_files_of_all_images_as_the_image_matching_workshop_asks_for_them(tmp_path):
    folder = tmp_path / "geodesc"
    folder.mkdir()
    for name, values in (("keypoints", POINTS), ("descriptors", WORDS), ("scores", SCORES)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["a"] = values
    assert_read(read_keypoints(folder, "a.jpg"), "geodesc")
    with pytest.raises(DataError, match=r"no keypoints for image b\.jpg: .*keypoints\.h5 has no"):
        read_keypoints(folder, "b.jpg")


def test_a_file_of_hloc_round_trip(tmp_path):
    """What `match --format h5` writes is read, half precision and one descriptor a column too."""
    square = Features(POINTS, SCORES, 64, 48, "x", np.ascontiguousarray(WORDS[:, :3]))
    features = replace(square, descriptors=WORDS)
    index = np.array([0])
    pair = SimpleNamespace(
        features0=features, features1=square, index0=index, index1=index + 1, scores=np.ones(1)
    )
    write_hloc(tmp_path, [("db/a.jpg", "q/b.jpg", pair)])
    assert_read(read_keypoints(tmp_path / "features.h5", "db/a.jpg"), "features")
    other = read_keypoints(tmp_path / "features.h5", "q/b.jpg")
    np.testing.assert_array_equal(other.descriptors, WORDS[:, :3])
    with h5py.File(tmp_path / "half.h5", "w") as file:
        group = file.create_group("a.jpg")
        group["keypoints"], group["scores"] = POINTS.astype(np.float16), SCORES.astype(np.float16)
        group["descriptors"] = WORDS.T.astype(np.float16)
    assert_read(read_keypoints(tmp_path / "half.h5", "a.jpg"), "half")
    with pytest.raises(DataError, match=r"no keypoints for image c\.jpg: .*half\.h5 has no entry"):
        read_keypoints(tmp_path / "half.h5", "c.jpg")


def test_an_evaluation_matches_the_descriptors_of_a_file(tmp_path):
    with h5py.File(tmp_path / "d2.h5", "w") as file:
        group = file.create_group("a.jpg")
        group["keypoints"], group["descriptors"] = POINTS, WORDS.T
    config = replace(Config(), matcher=replace(Config().matcher, name="mutual"))
    config = replace(config, front_end=replace(config.front_end, name="sift"))
    method = Method(MethodSpec(config, str(tmp_path / "d2.h5")))
    picture = np.zeros((48, 64), np.uint8)
    found = method.extract(picture, "a.jpg")
    assert found.detector == "d2"
    assert len(method.match(found, found, lambda: picture)) == 3


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"text"])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.jpg.x").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg\.x cannot be read as"):
        read_keypoints(tmp_path, "a.jpg")
    with h5py.File(tmp_path / "b.jpg.x", "w") as file:
        file["keypoints"] = np.array([b"x"], "S1")
    with pytest.raises(DataError, match="no array of numbers"):
        read_keypoints(tmp_path, "b.jpg")


def test_keypoint_files_of_all_kinds(tmp_path):
    points = np.array([[1.5, 2.0], [30, 20]], np.float32)
    (tmp_path / "a.jpg.txt").write_text("1.5 2\n30 20\n")
    (tmp_path / "b.csv").write_text("1.5,2,0.25\n30,20,0.75\n")
    np.savez(tmp_path / "c.jpg.npz", keypoints=points, descriptors=np.eye(2), detector="mine")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        np.testing.assert_array_equal(read_keypoints(tmp_path, name).points, points)
    np.testing.assert_array_equal(read_keypoints(tmp_path, "b.jpg").scores, [0.25, 0.75])
    assert read_keypoints(tmp_path, "c.jpg").detector == "mine"
    with pytest.raises(DataError, match="no keypoints for image d"):
        read_keypoints(tmp_path, "d.jpg")
    (tmp_path / "e.txt").write_text("1 2 3 4\n")
    with pytest.raises(DataError, match="cannot be read as keypoints"):
        read_keypoints(tmp_path, "e.jpg")
