"""Readings and calibrations of IMUs: what is read, and what is refused."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from superglue_ros.data import imu
from superglue_ros.data.imu import ImuReadings, read_euroc_readings, readings_of_messages
from superglue_ros.data.imu_calibration import read_imu_calibration
from superglue_ros.data.sequences.base import FolderSequence
from superglue_ros.errors import DataError
from superglue_ros.geometry.rotation import exp
from superglue_ros.synthetic.imu import adis16448, simulate

STEP_NS = 5_000_000
NOISE = """accelerometer_noise_density: 2.0e-3
accelerometer_random_walk: 3.0e-3
gyroscope_noise_density: 1.7e-4
gyroscope_random_walk: 1.9e-5
"""
CAMCHAIN = """cam0:
  T_cam_imu:
  - [0.0, -1.0, 0.0, 0.02]
  - [1.0, 0.0, 0.0, -0.06]
  - [0.0, 0.0, 1.0, 0.01]
  - [0.0, 0.0, 0.0, 1.0]
  timeshift_cam_imu: -0.0125
"""


def readings(count=200, force=(0.0, 0.0, 9.81)):
    found = ImuReadings()
    for i in range(count):
        found.add(1_000_000_000 + i * STEP_NS, force, (0.0, 0.0, 0.01 * i))
    return found


def message(stamp_ns, force=(0.0, 0.0, 9.81), rate=(0.1, 0.2, 0.3)):
    seconds, rest = divmod(stamp_ns, 10**9)
    stamp = SimpleNamespace(sec=seconds, nanosec=rest)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp),
        linear_acceleration=SimpleNamespace(**dict(zip("xyz", force, strict=True))),
        angular_velocity=SimpleNamespace(**dict(zip("xyz", rate, strict=True))),
    )


# -- readings --------------------------------------------------------------------------------------


def test_steps_between_two_times_are_of_mean_readings_and_interpolated_ends():
    start, end = 1_000_000_000 + 2_000_000, 1_000_000_000 + 13_000_000
    steps = readings().between(start, end)
    np.testing.assert_allclose(steps.seconds, [0.003, 0.005, 0.003])
    # The rate is 0.01 rad/s a step of 5 ms: linear in time.
    np.testing.assert_allclose(steps.rates[:, 2], [0.007, 0.015, 0.023])
    np.testing.assert_allclose(steps.forces, np.tile([0, 0, 9.81], (3, 1)))


def test_there_are_no_steps_where_readings_do_not_reach_or_leave_a_gap():
    found = readings(10)
    first, last = int(found.stamps_ns[0]), int(found.stamps_ns[-1])
    assert found.between(first, last) is not None
    assert found.between(first - 1, last) is None
    assert found.between(first, last + 1) is None
    assert found.between(last, first) is None
    found.add(last + 60_000_000, (0, 0, 9.81), (0, 0, 0))
    assert found.between(first, last + 60_000_000) is None


def test_readings_grow_beyond_their_first_room_in_order():
    found = readings(3000)
    assert len(found) == 3000
    np.testing.assert_array_equal(np.diff(found.stamps_ns), STEP_NS)
    np.testing.assert_allclose(found.rates[:, 2], 0.01 * np.arange(3000))


def test_the_oldest_readings_are_forgotten(monkeypatch):
    monkeypatch.setattr(imu, "_KEPT", 2048)
    found = readings(5000)
    assert 1024 <= len(found) <= 4096
    assert found.stamps_ns[-1] == 1_000_000_000 + 4999 * STEP_NS
    np.testing.assert_array_equal(np.diff(found.stamps_ns), STEP_NS)
    assert found.rates[-1, 2] == pytest.approx(49.99)


@pytest.mark.parametrize("step", [0, -STEP_NS])
def test_a_reading_that_is_not_later_is_refused(step):
    found = readings(2)
    with pytest.raises(DataError, match=r"1\.00\d+ s is not later .* in order"):
        found.add(int(found.stamps_ns[-1]) + step, (0, 0, 9.81), (0, 0, 0))
    assert len(found) == 2


def test_a_reading_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="not finite"):
        readings(2).add(5_000_000_000, (0, np.nan, 0), (0, 0, 0))


def test_accelerations_in_g_are_found_out():
    with pytest.raises(DataError, match=r"norm of 1\.00.*in g\. Multiply"):
        readings(force=(0.0, 0.6, 0.8)).check_unit()
    readings(force=(0.0, 0.0, 9.81)).check_unit()


def test_messages_that_are_refused_are_left_out_with_one_warning(caplog):
    good = [message(i * STEP_NS) for i in range(1, 5)]
    bad = [message(2 * STEP_NS), message(9 * STEP_NS, force=(0, 0, np.inf))]
    with caplog.at_level(logging.WARNING):
        found = readings_of_messages([*good, *bad], "topic /imu")
    np.testing.assert_array_equal(found.stamps_ns, STEP_NS * np.arange(1, 5))
    np.testing.assert_allclose(found.rates[0], [0.1, 0.2, 0.3])
    (record,) = caplog.records
    assert "topic /imu: 2 readings are left out" in record.getMessage()
    with pytest.raises(DataError, match="topic /imu holds no reading"):
        readings_of_messages([], "topic /imu")


def test_euroc_has_rates_before_accelerations(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("#timestamp,w,w,w,a,a,a\n1000,1,2,3,4,5,6\n2000,1,2,3,4,5,7\n")
    found = read_euroc_readings(file)
    np.testing.assert_array_equal(found.stamps_ns, [1000, 2000])
    np.testing.assert_array_equal(found.rates[1], [1, 2, 3])
    np.testing.assert_array_equal(found.forces[1], [4, 5, 7])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1000,1,2,3,4,5,6", "line 2: .*not later"),
        ("3000,1,2,3,4,5", "line 2: 6 values"),
        ("3000,1,2,3,4,5,nan", "line 2: 'nan' is not finite"),
        ("3e3,1,2,3,4,5,6", "line 2: '3e3' is not a timestamp"),
        (f"{2**63},1,2,3,4,5,6", "line 2: '9223372036854775808' is not a timestamp"),
    ],
)
def test_a_bad_line_of_euroc_is_named(tmp_path, line, said):
    file = tmp_path / "data.csv"
    file.write_text(f"2000,1,2,3,4,5,6\n{line}\n")
    with pytest.raises(DataError, match=said):
        read_euroc_readings(file)


def test_a_sequence_without_an_imu_says_so():
    assert FolderSequence("plain", [], None, 1.0).read_imu() is None


# -- calibration -----------------------------------------------------------------------------------


def test_kalibr_s_calibration_has_its_noise_beside_it(tmp_path):
    (tmp_path / "camchain-imucam.yaml").write_text(CAMCHAIN)
    (tmp_path / "imu.yaml").write_text(NOISE + "rostopic: /imu0\nupdate_rate: 200.0\n")
    found = read_imu_calibration(tmp_path / "camchain-imucam.yaml")
    np.testing.assert_allclose(found.T_camera_imu[:3, 3], [0.02, -0.06, 0.01])
    np.testing.assert_allclose(found.T_camera_imu[0, :3], [0, -1, 0])
    assert found.time_shift_s == -0.0125
    assert (found.accelerometer_noise_density, found.accelerometer_random_walk) == (2e-3, 3e-3)
    assert (found.gyroscope_noise_density, found.gyroscope_random_walk) == (1.7e-4, 1.9e-5)


def test_kalibr_s_noise_may_stand_in_the_same_file(tmp_path):
    file = tmp_path / "both.yaml"
    noise = "".join(f"  {line}\n" for line in NOISE.splitlines())
    file.write_text(f"{CAMCHAIN}imu0:\n{noise}")
    assert read_imu_calibration(file).gyroscope_random_walk == 1.9e-5


def test_euroc_s_calibration_joins_the_poses_in_the_body(tmp_path):
    for name, text in (
        ("cam0", "T_BS: {data: [0,-1,0,0.1, 1,0,0,0.2, 0,0,1,0.3, 0,0,0,1]}\n"),
        ("imu0", "T_BS: {data: [1,0,0,0, 0,1,0,0, 0,0,1,0.3, 0,0,0,1]}\n" + NOISE),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sensor.yaml").write_text(text)
    found = read_imu_calibration(tmp_path / "imu0" / "sensor.yaml")
    np.testing.assert_allclose(found.T_camera_imu[:3, 3], [-0.2, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.T_camera_imu[0, :3], [0, 1, 0], atol=1e-12)
    (tmp_path / "cam0" / "sensor.yaml").write_text(f"T_BS: {{data: {[0] * 16}}}\n")
    with pytest.raises(DataError, match=r"cam0/sensor\.yaml: T_BS is no rotation"):
        read_imu_calibration(tmp_path / "imu0" / "sensor.yaml")
    (tmp_path / "cam0" / "sensor.yaml").write_text("rate_hz: 20\n")
    with pytest.raises(DataError, match=r"cam0/sensor\.yaml has no T_BS"):
        read_imu_calibration(tmp_path / "imu0" / "sensor.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate_hz: 200\n", "neither T_cam_imu .* nor T_BS"),
        (CAMCHAIN, r"nor an \*imu\*\.yaml beside it has the noise"),
        (CAMCHAIN.replace("0.02]", "a]") + NOISE, "T_cam_imu must be 16 numbers"),
        (CAMCHAIN.replace("-1.0", "-1.1") + NOISE, "T_cam_imu is no rotation"),
        (CAMCHAIN.replace("0.02", ".nan") + NOISE, "T_cam_imu is no rotation"),
        (CAMCHAIN.replace("-0.0125", "12.5") + NOISE, r"time shift .* is 12\.5 s"),
        (CAMCHAIN.replace("-0.0125", "[1]") + NOISE, "float"),
        (CAMCHAIN + NOISE.replace("3.0e-3", "0"), "accelerometer_random_walk must be a positive"),
        (CAMCHAIN + NOISE.replace("gyroscope_random", "x"), "gyroscope_random_walk .* missing"),
    ],
)
def test_a_bad_calibration_is_named_with_what_is_wrong(tmp_path, text, said):
    file = tmp_path / "camchain.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=said) as raised:
        read_imu_calibration(file)
    assert str(file) in str(raised.value)


def test_a_calibration_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.yaml does not exist"):
        read_imu_calibration(tmp_path / "none.yaml")


# -- the simulated sensor --------------------------------------------------------------------------


def test_a_turning_sensor_at_rest_reads_gravity_and_its_rate():
    def pose_at(seconds):
        pose = np.eye(4)
        pose[:3, :3] = exp(np.array([0.3 * seconds, 0, 0]))
        return pose

    calibration = adis16448(np.eye(4))
    found = simulate(pose_at, 4.0, calibration, bias=[0.1, 0, 0, 0, 0, 0.02], seed=1)
    up = np.stack([pose_at(t)[:3, :3].T @ [0, 0, 9.81] for t in np.arange(801) / 200])
    off = found.forces - up - [0.1, 0, 0]
    assert np.abs(off.mean(0)).max() < 0.02
    assert off.std() == pytest.approx(2e-3 * np.sqrt(200), rel=0.1)
    np.testing.assert_allclose(found.rates.mean(0), [0.3, 0, 0.02], atol=1e-3)
