"""Work cut into shards, features and matches on disk, and what one process does with a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from superglue_ros.config import Config
from superglue_ros.errors import DataError
from superglue_ros.image_pairs.matching import ImageMatcher
from superglue_ros.image_pairs.selection import Selection, select
from superglue_ros.many_pairs.features import StoredFeatures, write_features
from superglue_ros.many_pairs.work import IMAGES, Work, feature_file
from superglue_ros.many_pairs.worker import Job, Worker
from superglue_ros.settings import build
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

CAMERA = built_in_camera(320, 240)
SETTINGS = build(Config, {"front_end": {"max_keypoints": 128}, "matcher": {"weights": "small"}})


def work(folder: Path, names: int, pairs: list[tuple[int, int]], shard: int = 2) -> Work:
    selection = Selection(folder, [f"{i}.png" for i in range(names)], np.array(pairs, np.int32))
    return Work.of(selection, shard, folder / "out")


def test_each_pair_is_there_once_whichever_image_comes_first(tmp_path: Path) -> None:
    found = work(tmp_path, 4, [(2, 1), (0, 3), (1, 2), (0, 3), (0, 1)])
    assert sorted(map(tuple, found.pairs.tolist())) == [(0, 1), (0, 3), (2, 1)]


def test_pairs_of_the_same_images_come_together(tmp_path: Path) -> None:
    side = 3 * IMAGES
    every = [(i, j) for i in range(side) for j in range(i + 1, side)]
    pairs = work(tmp_path, side, every).pairs
    assert len(pairs) == len(every)
    tiles = [tuple(tile) for tile in (pairs // IMAGES).tolist()]
    assert len([t for t, before in zip(tiles[1:], tiles, strict=False) if t != before]) == 5


def test_shards_that_are_there_are_done(tmp_path: Path) -> None:
    found = work(tmp_path, 5, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2)])
    found.prepare({})
    assert {k: v.tolist() for k, v in found.match_shards().items()} == {
        0: [[0, 1], [0, 2]],
        1: [[0, 3], [0, 4]],
        2: [[1, 2]],
    }
    (found.matches / "000001.parquet").touch()
    (found.matches / ".000002.parquet.x.tmp").touch()
    found.prepare({})
    assert list(found.match_shards()) == [0, 2]
    assert not list(found.matches.glob(".*"))
    assert found.feature_shards() == {0: range(5)}


def test_a_folder_made_with_others_is_refused(tmp_path: Path) -> None:
    work(tmp_path, 3, [(0, 1)]).prepare({"settings": {"threshold": 0.2}})
    with pytest.raises(DataError, match=r"settings.threshold: 0.2 became 0.3"):
        work(tmp_path, 3, [(0, 1)]).prepare({"settings": {"threshold": 0.3}})
    with pytest.raises(DataError, match="pairs: "):
        work(tmp_path, 3, [(0, 2)]).prepare({"settings": {"threshold": 0.2}})


def test_only_one_run_is_at_work_in_a_folder(tmp_path: Path) -> None:
    found = work(tmp_path, 3, [(0, 1)])
    with found.alone(), pytest.raises(DataError, match="another run is at work"), found.alone():
        pass
    with found.alone():
        pass


def test_neighbours_of_a_folder(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").touch()
    every = select([tmp_path], None, None).pairs.tolist()
    assert every == [[i, j] for i in range(5) for j in range(i + 1, 5)]
    assert select([tmp_path], None, 2).pairs.tolist() == [p for p in every if p[1] - p[0] <= 2]


@pytest.fixture(scope="module")
def room(tmp_path_factory: Any) -> Path:
    """Three views of a room and a file that is no image."""
    folder = tmp_path_factory.mktemp("room")
    sequence = RoomSequence(frames=60, camera=CAMERA)
    for name, frame in (("a", 30), ("b", 36), ("c", 42)):
        cv2.imwrite(str(folder / f"{name}.png"), sequence[frame].image)
    (folder / "d.png").write_text("no image")
    return folder


def test_a_worker_gives_what_direct_matching_gives(room: Path, tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    job = Job(
        images=room,
        features=tmp_path / "features",
        matches=tmp_path / "matches",
        config=SETTINGS,
        camera=CAMERA,
        batch=2,
        threads=1,
    )
    job.features.mkdir()
    job.matches.mkdir()
    worker = Worker(job, names)
    worker.start()
    assert sum(worker.encode(0, range(4))) == 4
    pairs = np.array([[0, 1], [1, 2], [2, 0], [0, 3]], np.int32)
    assert list(worker.match(7, pairs)) == [2, 2]
    rows = parquet.read_table(tmp_path / "matches/000007.parquet").to_pylist()
    assert [(r["image0"], r["image1"]) for r in rows] == [
        (names[i], names[j]) for i, j in pairs.tolist()
    ]
    images = [cv2.imread(str(room / name), cv2.IMREAD_GRAYSCALE) for name in names[:3]]
    direct = ImageMatcher(SETTINGS).match_pairs(images, pairs[:3].tolist(), [CAMERA] * 3)
    for row, pair in zip(rows, direct, strict=False):
        assert pair.pose is not None
        assert row["status"] == "OK"
        assert len(pair.matches) > 30
        assert row["index0"] == pair.index0.tolist()
        assert row["index1"] == pair.index1.tolist()
        np.testing.assert_allclose(row["score"], pair.scores, atol=1e-4)
        np.testing.assert_allclose(np.transpose([row["x0"], row["y0"]]), pair.points0)
        np.testing.assert_allclose(np.transpose([row["x1"], row["y1"]]), pair.points1, atol=1e-2)
        np.testing.assert_allclose(row["sigma_px"], pair.matches.sigma_px, rtol=1e-2)
        assert row["inlier"] == pair.inlier.tolist()
        assert row["pose_status"] == pair.pose.status.name
        rotation = np.reshape(row["rotation"], (3, 3))
        np.testing.assert_allclose(rotation, pair.pose.rotation, atol=1e-4)
    assert rows[3]["status"] == "ERROR"
    assert "d.png" in rows[3]["reason"]
    assert rows[3]["index0"] == []
    assert rows[3]["rotation"] is None


def test_damaged_features_are_named(tmp_path: Path) -> None:
    stored = StoredFeatures(tmp_path, lambda keyframe: keyframe)
    feature_file(tmp_path, 0).write_bytes(b"1234")
    with pytest.raises(DataError, match=r"000000.safetensors .*: remove it and run again"):
        stored[3]
    write_features(feature_file(tmp_path, 1), [DataError("too dark")])
    assert str(stored[IMAGES]) == "too dark"
    with pytest.raises(DataError, match=r"000001.safetensors holds no features of image 1"):
        stored[IMAGES + 1]
