"""A simulated IMU beside a camera: what it tells of the map, and when it is not believed."""

from __future__ import annotations

import dataclasses
import logging
import re

import numpy as np
import pytest

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from superglue_ros.back_end import imu as integrals
from superglue_ros.back_end import inertial
from superglue_ros.back_end.accuracy import measure
from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.imu import Imu
from superglue_ros.back_end.inertial import Inertial
from superglue_ros.back_end.inertial_start import estimate
from superglue_ros.back_end.offline import Recording, Session
from superglue_ros.back_end.scene import Motion, Scene, inverse, pose_of
from superglue_ros.config import Config
from superglue_ros.data.imu import ImuReadings
from superglue_ros.geometry.rotation import exp
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import FrameId

from ..inertial_world import BIAS, CALIBRATION, DOWN, RATE_HZ, pose_at, readings, true_velocity
from ..landmark_world import LandmarkWorld

FRAMES = 46
SETTINGS = {
    "device": "cpu",
    "front_end.name": "sift",
    "matcher.name": "ratio",
    "keyframes.relocalise_budget_s": 0.0,
}


@pytest.fixture(scope="module")
def frames():
    """Recordings along the path, and what the matcher says of each."""
    world, pipeline = LandmarkWorld(count=900, noise_px=0.5), Pipeline(from_flat(Config, SETTINGS))
    found = []
    for number in range(FRAMES):
        pose = pose_at(number / RATE_HZ)
        frame, _ = world.frame(number, pose[:3, :3], pose[:3, 3], keypoints=150)
        found.append((Recording(frame, pose), pipeline.process(frame).pairs))
    return found


def slam(frames, imu: Imu | None):
    """The run, its accuracy as it is (not scaled) and the map."""
    back_end = BundleAdjuster(BackEndConfig(window=6, fixed=5, loop_frames=30), imu)
    session = Session(back_end)
    for recording, pairs in frames:
        session.add(recording.frame.id, pairs, recording.frame.camera, recording.truth)
    run = session.finish()
    accuracy = measure(run.stamps_ns, run.truth, run.optimised, metric=True)
    return run, accuracy, back_end.scene


# -- the start -------------------------------------------------------------------------------------


def noisy_poses(stamps, unit, seed=0):
    """Poses in the first camera, in a ``unit`` in metres, with errors of 1 mrad and 1 mm."""
    rng = np.random.default_rng(seed)
    poses = []
    for stamp in stamps:
        pose = inverse(pose_at(0)) @ pose_at(stamp * 1e-9)
        shift = (pose[:3, 3] + rng.normal(0, 1e-3, 3)) / unit
        poses.append(pose_of(pose[:3, :3] @ exp(rng.normal(0, 1e-3, 3)), shift))
    return np.array(poses)


def start(seconds=4.0, unit=0.4, calibration=CALIBRATION, metric=False):
    stamps = [round(s * 1e9) for s in np.arange(0, seconds, 0.25)]
    imu = Imu(calibration, readings())
    return estimate(stamps, noisy_poses(stamps, unit), imu, 1e-3, 3.0 / unit, metric)


def off_gravity(gravity) -> float:
    """Angle [deg] between a gravity in the first camera and the true one."""
    true = pose_at(0)[:3, :3].T @ DOWN
    return float(np.rad2deg(np.arccos(min(1.0, gravity @ true / np.linalg.norm(gravity)))))


def test_scale_gravity_and_biases_come_from_poses_without_scale():
    state = start()
    assert state.scale == pytest.approx(0.4, rel=0.02)
    assert abs(np.log(state.scale / 0.4)) < 3 * state.log_scale_sigma < 0.06
    assert np.linalg.norm(state.gravity) == pytest.approx(9.81)
    assert off_gravity(state.gravity) < 0.3
    np.testing.assert_allclose(state.bias[:3], BIAS[:3], atol=0.03)
    np.testing.assert_allclose(state.bias[3:], BIAS[3:], atol=0.003)
    assert state.chi2 < 1.5


def test_a_known_scale_stays():
    state = start(unit=1.0, metric=True)
    assert state.scale == pytest.approx(1, abs=1e-4)
    assert off_gravity(state.gravity) < 0.3


def test_a_short_motion_does_not_tell_the_scale_and_says_so():
    assert start(seconds=1.0).log_scale_sigma > 0.05


def test_an_imu_that_is_elsewhere_contradicts_the_poses():
    turned = pose_of(CALIBRATION.T_camera_imu[:3, :3] @ exp(np.array([0, 0.5, 0])), np.zeros(3))
    assert start(calibration=dataclasses.replace(CALIBRATION, T_camera_imu=turned)).chi2 > 10


def test_without_readings_there_is_no_start():
    stamps = [0, 10**9, 2 * 10**9]
    poses = noisy_poses(stamps, 1.0)
    assert estimate(stamps, poses, Imu(CALIBRATION), 1e-3, 3.0, False) is None


# -- preintegration --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_s", [0.0, 0.03])
def test_a_prediction_over_a_second_is_right(shift_s):
    """Also where the clock of the IMU is ahead, as Kalibr gives it."""
    calibration = dataclasses.replace(CALIBRATION, time_shift_s=shift_s)
    imu = Imu(calibration, readings(calibration))
    motion = Motion(true_velocity(1.0), BIAS)
    ends = 1_000_000_000, 2_000_000_000
    pose, after = imu.predict(*ends, pose_at(1.0), motion, 9.81 * DOWN)
    np.testing.assert_allclose(pose, pose_at(2.0), atol=0.01)
    np.testing.assert_allclose(after.velocity, true_velocity(2.0), atol=0.02)
    assert imu.predict(ends[0], 9_000_000_000, pose_at(1.0), motion, 9.81 * DOWN) is None


# -- the map ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(frames):
    return slam(frames[:38], Imu(CALIBRATION, readings()))


def test_a_monocular_map_becomes_metric_and_upright(mapped):
    run, accuracy, scene = mapped
    assert run.metric
    assert accuracy.placed == 1
    assert accuracy.scale_error < 0.02
    assert accuracy.ate_m < 0.015
    first = next(iter(scene.poses.values()))
    assert off_gravity(first[:3, :3].T @ scene.gravity) < 0.2
    np.testing.assert_allclose(scene.bias[:3], BIAS[:3], atol=0.03)
    np.testing.assert_allclose(scene.bias[3:], BIAS[3:], atol=0.003)
    # The trajectory is upright: the world's down is its -z.
    down = run.optimised[0][:3, :3] @ pose_at(0)[:3, :3].T @ DOWN
    np.testing.assert_allclose(down, [0, 0, -1], atol=0.005)


def test_velocities_are_those_of_the_sensor(mapped):
    scene = mapped[2]
    frame = sorted(scene.motions, key=lambda one: one.stamp_ns)[len(scene.motions) // 2]
    seconds = frame.stamp_ns * 1e-9
    turn = scene.poses[frame][:3, :3] @ pose_at(seconds)[:3, :3].T
    np.testing.assert_allclose(
        scene.motions[frame].velocity, turn @ true_velocity(seconds), atol=0.02
    )


def test_a_short_loss_of_tracking_is_bridged(frames):
    """0.7 s without frames, and nothing of what was seen before is seen after."""
    pipeline, later = Pipeline(from_flat(Config, SETTINGS)), []
    for recording, _ in frames[40:]:
        pairs = [with_other_landmarks(pair) for pair in pipeline.process(recording.frame).pairs]
        later.append((recording, pairs))
    _, accuracy, _ = slam([*frames[:33], *later], Imu(CALIBRATION, readings()))
    assert accuracy.placed == 1
    assert accuracy.ate_m < 0.03
    assert accuracy.scale_error < 0.02


def with_other_landmarks(pair):
    """The same pair as a tracker would say it that has never seen what was before."""
    tracks = pair.matches.track_ids
    matches = dataclasses.replace(
        pair.matches, track_ids=np.where(tracks < 0, -1, tracks + 1_000_000)
    )
    return dataclasses.replace(pair, matches=matches)


# -- what is not believed --------------------------------------------------------------------------


def changed(source, stamp=lambda s: s, force=lambda f: f, rate=lambda w: w):
    found = ImuReadings()
    for one, f, w in zip(source.stamps_ns.tolist(), source.forces, source.rates, strict=True):
        if stamp(one) is not None:
            found.add(stamp(one), force(f), rate(w))
    return found


def test_integrals_that_are_long_past_are_forgotten(monkeypatch, right):
    monkeypatch.setattr(integrals, "_REMEMBERED", 10)
    imu = Imu(CALIBRATION, right)
    for start_ns in range(0, 40 * 10**8, 10**8):
        assert imu.preintegrate(start_ns, start_ns + 10**8, BIAS, np.zeros(3)) is not None
    assert len(imu._known) == 10


def scene_of_poses(unit=0.4, seconds=6.0):
    """A map that is nothing but poses, as vision gives them."""
    scene, stamps = Scene(), [round(1e9 * s) for s in np.arange(0, seconds, 0.1)]
    for i, pose in enumerate(noisy_poses(stamps, unit)):
        scene.poses[FrameId(i, stamp_ns=stamps[i])] = pose
    return scene


def updated(imu, scene):
    return Inertial(imu).update(scene, focal_px=400.0)


@pytest.fixture(scope="module")
def right():
    return readings(end_s=6.0)


def test_poses_and_readings_are_enough_to_start(right):
    scene = scene_of_poses()
    assert updated(Imu(CALIBRATION, right), scene)
    assert scene.metric
    first, last = list(scene.poses.values())[:: len(scene.poses) - 1]
    true = np.linalg.norm(pose_at(0)[:3, 3] - pose_at(5.9)[:3, 3])
    assert np.linalg.norm(last[:3, 3] - first[:3, 3]) == pytest.approx(true, rel=0.03)


def test_an_imu_that_starts_late_or_pauses_is_used_where_it_reads(right):
    late = changed(right, stamp=lambda s: s if s > 2_000_000_000 else None)
    assert updated(Imu(CALIBRATION, late), scene_of_poses())
    pause = changed(right, stamp=lambda s: None if 1_000_000_000 < s < 1_200_000_000 else s)
    assert updated(Imu(CALIBRATION, pause), scene_of_poses())


@pytest.mark.parametrize(
    ("change", "calibration", "said"),
    [
        ({"force": lambda f: f / 9.80665}, {}, "they seem to be in g"),
        ({"rate": np.rad2deg}, {}, "contradicts the camera .* in rad/s"),
        ({"stamp": lambda s: s + 10**15}, {}, "do not cover the frames .* one clock"),
        ({"stamp": lambda s: s if s % 100_000_000 == 0 else None}, {}, "gaps of more than 50 ms"),
        ({}, {"time_shift_s": 0.3}, r"contradicts the camera .*\(timeshift_cam_imu\)"),
        ({}, {"T_camera_imu": np.eye(4)}, r"contradicts the camera .*\(T_cam_imu\)"),
    ],
)
def test_a_wrong_imu_is_not_used_and_the_fix_is_named(right, caplog, change, calibration, said):
    scene = scene_of_poses()
    before = {frame: pose.copy() for frame, pose in scene.poses.items()}
    wrong = dataclasses.replace(CALIBRATION, **calibration)
    with caplog.at_level(logging.WARNING):
        assert not updated(Imu(wrong, changed(right, **change)), scene)
    assert not scene.metric
    assert all(np.array_equal(scene.poses[frame], pose) for frame, pose in before.items())
    (record,) = caplog.records
    assert re.search(said, record.getMessage())


def test_a_map_with_a_wrong_imu_is_the_one_without(frames):
    wrong = Imu(CALIBRATION, changed(readings(), rate=np.rad2deg))
    run, _, scene = slam(frames[:20], wrong)
    alone, _, _ = slam(frames[:20], None)
    assert not scene.metric
    for one, other in zip(run.optimised, alone.optimised, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fault", ["wrong", "silent"])
def test_an_imu_that_fails_later_does_no_harm_and_is_given_up(frames, caplog, monkeypatch, fault):
    monkeypatch.setattr(inertial, "_TIMES", 2)
    source = readings()
    if fault == "wrong":
        source.forces[600:] += [0.0, 8.0, 0.0]  # from the third second on
    else:
        source = changed(source, stamp=lambda s: s if s < 3_000_000_000 else None)
    with caplog.at_level(logging.WARNING):
        _, accuracy, scene = slam(frames[:38], Imu(CALIBRATION, source))
    assert scene.gravity is None
    assert not scene.motions
    said = "contradicts the map" if fault == "wrong" else r"readings \(.* to 2\.995 s\) ended"
    assert re.search(said, caplog.text)
    assert accuracy.placed == 1
    assert accuracy.scale_error < 0.1
    assert accuracy.ate_m < 0.1
