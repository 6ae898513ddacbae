from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.cli import main
from superglue_ros.config import Config, FrontEndConfig, KeyframesConfig, MatcherConfig
from superglue_ros.data.bag_sequences import BagSequence, SequenceTopics, write_bag
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.data.trajectories import Trajectory, write_trajectory
from superglue_ros.evaluation.bag import judge as bag
from superglue_ros.evaluation.bag.outcomes import FrameOutcome, PairOutcome, matches_digest
from superglue_ros.evaluation.bag.run import deterministic, node_parameters
from superglue_ros.geometry.camera import Camera
from superglue_ros.types import MatchStatus, PoseStatus

CAMERA = Camera(160, 120, np.array([[150.0, 0, 80], [0, 150.0, 60], [0, 0, 1]]), np.zeros(0))
STEP_NS = 100_000_000


class Sideways:
    """A camera that moves along a textured wall 1 m away: 6 px to the side per frame."""

    name = "sideways"

    def __init__(self, frames: int = 4) -> None:
        self._frames = frames
        cells = np.random.default_rng(0).integers(0, 256, (30, 55), np.uint8)
        self._wall = cv2.resize(cells, (220, 120), interpolation=cv2.INTER_CUBIC)

    def __len__(self) -> int:
        return self._frames

    def __iter__(self):
        for k in range(self._frames):
            pose = np.eye(4)
            pose[0, 3] = 6 * k / 150
            image = np.ascontiguousarray(self._wall[:, 6 * k : 6 * k + 160])
            yield SequenceItem((k + 1) * STEP_NS, image, CAMERA, None, pose)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    write_bag(Sideways(), tmp_path / "bag", SequenceTopics(depth=""))
    return tmp_path / "bag"


def evaluate(*arguments: object) -> int:
    method = ("--front-end", "sift", "--matcher", "mutual", "--max-keypoints", 200)
    return main(["evaluate", "bag", *(str(a) for a in (*arguments, *method))])


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(("storage", "jpeg"), [("mcap", None), ("sqlite3", 95)])
def test_a_recording_evaluated_twice_gives_equal_bytes(tmp_path, storage, jpeg):
    topics = SequenceTopics(depth="")
    write_bag(Sideways(), tmp_path / "bag", topics, storage=storage, jpeg_quality=jpeg)
    for name in ("one", "two"):
        assert evaluate(tmp_path / "bag", "--output", tmp_path / name, "--no-pictures") == 0
    for file in ("summary.json", "records.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    numbers = summary(tmp_path / "one")
    assert numbers["frames"] == 4
    assert numbers["pairs"] == 3
    assert numbers["mean_matches"] > 30
    assert numbers["median_epipolar_px"] < 1
    assert numbers["tracks"]["tracks"] > 30
    assert 2 <= numbers["tracks"]["mean_track_frames"] <= 4
    assert numbers["tracks"]["track_jitter_px"] < 1
    assert numbers["trajectory"]["poses"] == 4


def test_report_ground_truth_file_and_missing_topics(recording, tmp_path, capsys):
    output = tmp_path / "out"
    sequence = BagSequence(recording)
    write_trajectory(tmp_path / "truth.tum", sequence.trajectory)
    assert evaluate(recording, "--output", output, "--ground-truth", tmp_path / "truth.tum") == 0
    assert "data:image/" in (output / "report.html").read_text()
    assert summary(output)["judged_pairs"] == 3
    assert (output / "timing.csv").read_text().startswith("frame,extract,match,geometry")
    assert evaluate(recording, "--image", "/nothing", "--output", output) == 1
    assert "/camera/image_raw (sensor_msgs/msg/Image, 4 messages)" in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.timeout(600)  # three processes have to start
@pytest.mark.skipif(
    find_spec("rclpy") is None or find_spec("superglue_ros.msg") is None,
    reason="no ROS environment: run it with make test",
)
def test_the_live_node_gives_what_the_pipeline_gives(recording, tmp_path):
    common = (recording, "--no-pictures", "--output")
    assert evaluate(*common, tmp_path / "offline") == 0
    assert evaluate(*common, tmp_path / "live", "--live") == 0
    for file in ("summary.json", "records.csv"):
        assert (tmp_path / "offline" / file).read_bytes() == (tmp_path / "live" / file).read_bytes()


def outcome(number: int, pairs: tuple[PairOutcome, ...] = (), refused: str = "") -> FrameOutcome:
    return FrameOutcome(number, number * STEP_NS, 50, pairs, (0.1, 0.2, 0.3), refused)


def pair_with(
    reference: int, pose: np.ndarray, status: PoseStatus = PoseStatus.VALID, metric: bool = True
) -> PairOutcome:
    points = np.array([[10.0, 20.0], [30, 40]], np.float32)
    return PairOutcome(
        reference, reference * STEP_NS, 0, MatchStatus.OK,
        np.array([0, 1], np.int32), np.array([1, 0], np.int32), points, points,
        np.array([0.9, 0.5], np.float32), np.array([True, False]), status,
        pose[:3, :3], pose[:3, 3], metric,
    )  # fmt: skip


def walk(frames: int) -> Trajectory:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for k in range(frames):
        poses[k, :3, :3] = Rotation.from_euler("yxz", [7 * k, -3 * k, k], True).as_matrix()
        poses[k, :3, 3] = [0.3 * k, 0.1 * k * k, -0.2 * k]
    return Trajectory(np.arange(1, frames + 1, dtype=np.int64) * STEP_NS, poses)


def relative(truth: Trajectory, reference: int, query: int) -> np.ndarray:
    return np.linalg.inv(truth.poses[reference - 1]) @ truth.poses[query - 1]


def test_exact_relative_poses_chain_to_the_true_trajectory():
    truth = walk(6)
    outcomes = [outcome(1)]
    for number in range(2, 7):
        reference = max(1, number - 2)
        pose = relative(truth, reference, number)
        scale = np.linalg.norm(pose[:3, 3])
        pose[:3, 3] /= scale
        outcomes.append(outcome(number, (pair_with(reference, pose, metric=False),)))
    chained, metric = bag.chain(outcomes, truth)
    assert not metric
    expected = np.linalg.inv(truth.poses[0]) @ truth.poses
    np.testing.assert_allclose(chained.poses, expected, atol=1e-9)
    records = bag.judge(outcomes, truth, CAMERA, bag.BagProtocol())
    numbers = bag.summarise(outcomes, records, truth)
    assert numbers["auc"]["5"] == pytest.approx(100, abs=1e-3)
    assert numbers["trajectory"]["ate_m"] == pytest.approx(0, abs=1e-6)
    assert numbers["trajectory"]["scale_from"] == "ground truth"


def test_statuses_decide_what_is_judged():
    truth = walk(5)
    flipped = relative(truth, 1, 2)
    flipped[:3, 3] *= -1
    outcomes = [
        outcome(1),
        outcome(2, (pair_with(1, flipped),)),  # the sign of a direction counts
        outcome(3, (pair_with(1, relative(truth, 1, 3), PoseStatus.ROTATION_ONLY),)),
        outcome(4, (pair_with(1, relative(truth, 1, 4), PoseStatus.REJECTED),)),
        outcome(5, (), "image is too large"),
    ]
    records = bag.judge(outcomes, truth, CAMERA, bag.BagProtocol())
    assert [r["reference"] for r in records] == [-1, 1, 1, 1, -1]
    assert records[1]["direction_error_deg"] == pytest.approx(180)
    assert records[2]["rotation_error_deg"] == pytest.approx(0, abs=1e-5)
    assert records[2]["pose_error_deg"] == np.inf  # a true baseline and no direction: a failure
    assert records[3]["rotation_error_deg"] == np.inf
    near = bag.judge(outcomes, truth, CAMERA, bag.BagProtocol(min_baseline=100.0))
    assert near[2]["pose_error_deg"] == pytest.approx(0, abs=1e-5)
    numbers = bag.summarise(outcomes, records, truth)
    assert numbers["valid_share"] == pytest.approx(100 / 3)
    assert numbers["usable_share"] == pytest.approx(200 / 3)
    assert numbers["refused_frames"] == 1
    assert numbers["statuses"]["rejected"] == 1
    assert len(bag.timing(outcomes)["total"]) == 4


def test_digest_sees_every_bit_of_the_matches():
    truth = walk(2)
    one = [outcome(2, (pair_with(1, relative(truth, 1, 2)),))]
    other = [outcome(2, (pair_with(1, np.eye(4)),))]  # poses are no matches
    assert matches_digest(one) == matches_digest(other)
    other[0].pairs[0].points_ref[0, 0] = np.nextafter(np.float32(10), np.float32(11))
    assert matches_digest(one) != matches_digest(other)


def test_settings_are_passed_on_to_the_node_without_limits_of_time():
    given = Config(
        front_end=FrontEndConfig(name="sift"),
        matcher=MatcherConfig(name="ratio"),
        keyframes=KeyframesConfig(window=2, relocalise_budget_s=0.3),
    )
    config = deterministic(given)
    assert config.keyframes.relocalise_budget_s == 0  # a limit of time: what it cuts off is chance
    assert node_parameters(config) == {
        "front_end.name": "sift",
        "matcher.name": "ratio",
        "keyframes.window": "2",
    }
