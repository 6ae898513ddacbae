"""``evaluate bag --back-end``: one command from a recording to trajectories and their errors."""

from __future__ import annotations

import json
from collections import deque

import numpy as np
import pytest
import yaml

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from superglue_ros.back_end.round_trip import RoundTripSequence
from superglue_ros.cli import main
from superglue_ros.data.bag_sequences import SequenceTopics, read_imu, write_bag
from superglue_ros.data.bags import BagReader, BagWriter, typestore
from superglue_ros.data.trajectories import read_trajectory
from superglue_ros.errors import DataError
from superglue_ros.evaluation.bag.back_end import with_back_end


class Corner:
    """The first frames of the round trip in the rendered room."""

    name = "corner"

    def __init__(self, frames: int) -> None:
        self._trip, self._frames = RoundTripSequence(), frames

    def __len__(self) -> int:
        return self._frames

    def __iter__(self):
        return (self._trip[index] for index in range(self._frames))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("corner") / "bag"
    write_bag(Corner(6), folder, SequenceTopics())
    return folder


def evaluate(bag, output, *arguments: str) -> dict:
    method = ["--front-end", "sift", "--matcher", "ratio", "--max-keypoints", "400"]
    command = ["evaluate", "bag", str(bag), "--output", str(output), "--back-end"]
    assert main([*command, *method, *arguments]) == 0
    return json.loads((output / "summary.json").read_text())["back_end"]


def test_monocular_with_plots_report_and_trajectories(recording, tmp_path, capsys):
    found = evaluate(recording, tmp_path)
    assert not found["metric"]
    rows = found["trajectories"]
    assert set(rows) == {"relative poses", "back-end"}
    for row in rows.values():
        assert row["placed"] == 1.0
        assert 0 < row["ate_m"] < 0.03
        assert row["rpe_deg"] < 1.0
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000
    assert "Trajectories, aligned (similarity" in (tmp_path / "report.html").read_text()
    assert "back-end: ATE" in capsys.readouterr().out
    trajectory = read_trajectory(tmp_path / "back_end.tum")
    assert len(trajectory) == 6
    assert np.isfinite(trajectory.poses).all()


def test_with_depth_the_scale_is_right(recording, tmp_path):
    found = evaluate(recording, tmp_path, "--depth", SequenceTopics().depth, "--no-pictures")
    assert found["metric"]
    assert found["trajectories"]["back-end"]["scale"] == pytest.approx(1, abs=0.03)
    assert found["trajectories"]["back-end"]["ate_m"] < 0.02


@pytest.fixture(scope="module")
def with_imu(recording, tmp_path_factory):
    """The recording with the IMU of the round trip, also in g, and the file of its calibration."""
    folder = tmp_path_factory.mktemp("imu")
    calibration = RoundTripSequence().read_imu().calibration
    noise = {k: v for k, v in vars(calibration).items() if k.startswith(("acc", "gyr"))}
    kalibr = {"cam0": {"T_cam_imu": calibration.T_camera_imu.tolist()}, "imu0": noise}
    (folder / "camchain-imucam.yaml").write_text(yaml.safe_dump(kalibr))
    with BagReader(recording) as source, BagWriter(folder / "bag") as bag:
        for topic in source.topics.values():
            bag.add_topic(topic.name, topic.type)
        for topic in ("/imu", "/imu_in_g"):
            bag.add_topic(topic, "sensor_msgs/msg/Imu")
        readings = waiting_readings()
        for name, stamp, data in source.serialised(list(source.topics)):
            for at, topic, message in readings(stamp):
                bag.write(topic, at, message)
            bag.write_serialised(name, stamp, data)
    return folder


def waiting_readings():
    """A function that gives the readings up to a stamp which it has not given before."""
    imu = RoundTripSequence().read_imu().readings
    rows = deque(zip(imu.stamps_ns.tolist(), imu.forces, imu.rates, strict=True))
    types = typestore().types
    vector, header = types["geometry_msgs/msg/Vector3"], types["std_msgs/msg/Header"]
    nothing = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)

    def message(stamp, force, rate):
        seconds, rest = divmod(stamp, 10**9)
        time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)
        return types["sensor_msgs/msg/Imu"](
            header=header(stamp=time, frame_id="imu"),
            orientation=nothing,
            orientation_covariance=np.zeros(9),
            angular_velocity=vector(*rate.tolist()),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=vector(*force.tolist()),
            linear_acceleration_covariance=np.zeros(9),
        )

    def up_to(stamp):
        while rows and rows[0][0] <= stamp:
            at, force, rate = rows.popleft()
            yield at, "/imu", message(at, force, rate)
            yield at, "/imu_in_g", message(at, force / 9.80665, rate)

    return up_to


def test_the_imu_of_a_bag_is_read(with_imu, tmp_path):
    """Half a second is too short for it to tell the scale: the map is that of vision."""
    with BagReader(with_imu / "bag") as bag:
        readings = read_imu(bag, "/imu")
    assert len(readings) == 101
    assert np.linalg.norm(readings.forces, axis=1).mean() == pytest.approx(9.81, abs=0.5)
    calibration = with_imu / "camchain-imucam.yaml"
    use = ("--imu", "/imu", "--imu-calibration", str(calibration), "--no-pictures")
    found = evaluate(with_imu / "bag", tmp_path, *use)
    assert not found["metric"]
    assert found["trajectories"]["back-end"]["placed"] == 1
    assert json.loads((tmp_path / "config.json").read_text())["use_imu"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--imu", "/imu"), "--imu /imu needs --back-end and --imu-calibration"),
        (("--imu", "/imu", "--imu-calibration", "none.yaml"), "none.yaml does not exist"),
        (("--imu", "/gyro", "--imu-calibration", "FILE"), "no topic '/gyro'"),
        (("--imu", "/imu_in_g", "--imu-calibration", "FILE"), "they seem to be in g"),
    ],
)
def test_a_wrong_imu_of_a_bag_is_refused(with_imu, tmp_path, capsys, arguments, said):
    file = str(with_imu / "camchain-imucam.yaml")
    words = [file if word == "FILE" else word for word in arguments]
    command = ["evaluate", "bag", str(with_imu / "bag"), "--output", str(tmp_path), "--back-end"]
    assert main([*command, "--front-end", "sift", "--matcher", "ratio", *words]) == 1
    assert said in capsys.readouterr().err


def test_without_calibration_it_is_refused(tmp_path):
    class Uncalibrated:
        path, name, camera = tmp_path / "bag", "bag", None

    with pytest.raises(DataError, match="no calibration"):
        with_back_end([], Uncalibrated(), None, tmp_path)
