"""``superglue-ros view``: what stands in the Rerun recording and in the moving picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gtsam")

from superglue_ros.cli import main
from superglue_ros.config import Config
from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics, write_bag
from superglue_ros.data.bags import BagWriter, typestore
from superglue_ros.drawing.live_view import Destination, LiveView
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import build, override
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera
from superglue_ros.types import MatchKind
from superglue_ros.viewer.steps import Step, matched, relocalised, steps

from ..recordings import entities

SETTINGS = [
    *("front_end.name=sift", "matcher.name=ratio", "front_end.max_keypoints=512"),
    "keyframes.window=2",
]
QUICK = [word for setting in SETTINGS for word in ("--set", setting)]
FRAMES = 5


class Part:
    """Every sixth frame of the small room: enough parallax to triangulate."""

    name = "room"

    def __init__(self) -> None:
        self._room = RoomSequence(frames=60, camera=built_in_camera(320, 240))

    def __len__(self) -> int:
        return FRAMES

    def __iter__(self):
        return (self._room[6 * number] for number in range(FRAMES))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "bag"
    write_bag(Part(), path)
    return path


@pytest.fixture(scope="module")
def expected(bag: Path) -> list[Step]:
    """The steps of the same frames, made without the command."""
    pipeline = Pipeline(build(Config, override({}, SETTINGS)))
    sequence = BagSequence(bag, depth=SequenceTopics.depth)
    return list(steps(matched(sequence, pipeline, use_depth=True)))


def test_steps_hold_a_metric_map(expected: list[Step]) -> None:
    assert [len(step.poses) for step in expected] == [0, 2, 3, 4, 5]
    last = expected[-1]
    truth = np.array([step.item.T_world_camera for step in expected])
    moved = np.linalg.norm(last.poses[:, :3, 3], axis=1)
    np.testing.assert_allclose(
        moved, np.linalg.norm(truth[:, :3, 3] - truth[0, :3, 3], axis=1), atol=0.02
    )
    assert len(last.landmarks) > 50
    inliers = [pair.pose.num_inliers for pair in last.pairs]
    assert inliers == sorted(inliers, reverse=True)
    assert len(inliers) > 1  # the window holds two keyframes


def test_a_recording_holds_what_the_matcher_said(
    bag: Path, expected: list[Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun.chunk")
    file = tmp_path / "walk.rrd"
    assert main(["view", str(bag), "--depth", "--save", str(file), *QUICK]) == 0
    assert f"rerun {file}" in capsys.readouterr().out
    found = entities(file)
    start = expected[0].item.stamp_ns

    def keyed(step: Step) -> float:
        return pytest.approx((step.item.stamp_ns - start) * 1e-9)

    shown = [(step, step.pairs[0].matches) for step in expected[1:]]
    assert all(matches.kind is MatchKind.KEYFRAME for _, matches in shown)
    assert found["counts/inliers"]["Scalars:scalars"] == [
        (keyed(step), [int(matches.inlier.sum())]) for step, matches in shown
    ]
    lines = found["matches/inliers"]["LineStrips2D:strips"]
    assert [len(values) for _, values in lines] == [int(m.inlier.sum()) for _, m in shown]
    _, last = shown[-1]
    (first_line, *_) = lines[-1][1]
    at = np.flatnonzero(last.inlier)[0]
    np.testing.assert_allclose(first_line[0], last.points_ref[at], atol=1e-3)
    np.testing.assert_allclose(first_line[1], last.points_query[at] + [320 + 8, 0], atol=1e-3)
    (path,) = found["world/trajectory"]["LineStrips3D:strips"][-1][1]
    np.testing.assert_allclose(path, expected[-1].poses[:, :3, 3], atol=1e-4)
    cloud = found["world/landmarks"]["Points3D:positions"][-1][1]
    np.testing.assert_allclose(cloud, expected[-1].landmarks, atol=1e-4)
    assert 1 <= len(found["world/keyframes"]["Points3D:positions"][-1][1]) < FRAMES
    assert len(found["world/camera/image"]["EncodedImage:blob"]) == FRAMES
    for stage in ("extract", "match", "geometry"):
        assert len(found[f"milliseconds/{stage}"]["Scalars:scalars"]) == FRAMES


def test_a_moving_picture_has_a_picture_for_every_matched_frame(bag: Path, tmp_path: Path) -> None:
    file = tmp_path / "walk.webp"
    words = ["view", str(bag), "--depth", "--animation", str(file), "--width", "400"]
    assert main([*words, *QUICK]) == 0
    with Image.open(file) as picture:
        assert picture.n_frames == FRAMES - 1
        assert picture.size == (400, round(240 * 400 / 648) + 100)
        picture.seek(picture.n_frames - 1)
        below = np.asarray(picture.convert("RGB"))[-100:, :200]
    blue = (below[..., 2] > 150) & (below[..., 0] < 140)
    assert blue.sum() > 30  # the trajectory


@pytest.mark.parametrize(
    "words, message",
    [
        (["/nowhere.mcap"], "bag /nowhere.mcap does not exist"),
        (["/nowhere"], "sequence /nowhere does not exist"),
        (["--every", "0"], "must be 1 or more"),
        (["--width", "9"], "--width 100 to 4000"),
    ],
)
def test_what_cannot_be_shown(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words, "--save", "/nowhere/a.rrd"]) == 1
    assert message in capsys.readouterr().err


def test_without_rerun_the_message_says_what_to_install(
    bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", str(bag), "--save", "a.rrd", *QUICK]) == 1
    assert "pip install 'superglue_ros[view]'" in capsys.readouterr().err


def test_the_camera_in_a_loaded_map_and_its_trail(tmp_path: Path) -> None:
    pytest.importorskip("rerun.chunk")
    kind = "geometry_msgs/msg/PoseWithCovarianceStamped"
    types = typestore().types
    with BagWriter(tmp_path / "said") as bag:
        bag.add_topic("/relocalised_pose", kind)
        for stamp_ns in (0, 10**8, 5 * 10**9):
            header = types["std_msgs/msg/Header"](
                stamp=types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9),
                frame_id="map",
            )
            pose = types["geometry_msgs/msg/Pose"](
                position=types["geometry_msgs/msg/Point"](stamp_ns * 1e-9, 2.0, 3.0),
                orientation=types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
            )
            uncertain = types["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36))
            bag.write("/relocalised_pose", stamp_ns, types[kind](header, uncertain))
    with LiveView(Destination(tmp_path / "a.rrd")) as view:
        for stamp_ns, pose in relocalised(tmp_path / "said").items():
            view.add_relocalised(stamp_ns, pose)
    found = entities(tmp_path / "a.rrd")
    (before, after) = found["map/trail"]["LineStrips3D:strips"][-1][1]  # not over the pause
    np.testing.assert_allclose(before, [[0, 2, 3], [0.1, 2, 3]], atol=1e-6)
    np.testing.assert_allclose(after, [[5, 2, 3]])
    assert [time for time, _ in found["map/camera"]["Transform3D:translation"]] == [0, 0.1, 5]


def test_a_recording_without_a_loaded_map_has_no_camera_in_one(bag: Path) -> None:
    assert relocalised(bag) == {}
