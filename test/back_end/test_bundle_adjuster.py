"""The example back-end recovers trajectories of a world of points, and closes their loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("gtsam")

from superglue_ros.back_end import loops
from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.offline import Recording, run
from superglue_ros.back_end.optimiser import adjust
from superglue_ros.back_end.placement import resect
from superglue_ros.back_end.scene import Edge, Observation, Scene, in_camera, inverse, pose_of
from superglue_ros.config import Config
from superglue_ros.pipeline import Pipeline
from superglue_ros.settings import from_flat
from superglue_ros.types import FrameId

from ..landmark_world import CAMERA, LandmarkWorld, heading

SETTINGS = {
    "device": "cpu",
    "front_end.name": "sift",
    "matcher.name": "ratio",
    "keyframes.loop_min_gap": 4,
    "keyframes.relocalise_budget_s": 0.0,
}
BACK_END = BackEndConfig(window=6, fixed=5, loop_frames=30)


def circle(degrees, with_depth=False, noise_px=0.5):
    """Recordings of a camera on a circle of 1 m that looks outwards and bobs up and down."""
    world = LandmarkWorld(count=900, noise_px=noise_px)
    for number, angle in enumerate(degrees):
        rotation = heading(angle)
        position = rotation @ [0, 0, 1.0] + [0, 0.1 * np.sin(np.deg2rad(3 * angle)), 0]
        frame, _ = world.frame(number, rotation, position, with_depth=with_depth, keypoints=200)
        yield Recording(frame, pose_of(rotation, position))


class Watched(BundleAdjuster):
    """Remembers how many frames each adjustment moved."""

    def __init__(self, config):
        super().__init__(config)
        self.sizes = []

    def _adjust(self, frames, *rest):
        self.sizes.append(len(frames))
        return super()._adjust(frames, *rest)


def slam(recordings, back_end=None, **settings):
    names = {key.replace("__", "."): value for key, value in settings.items()}
    pipeline = Pipeline(from_flat(Config, {**SETTINGS, **names}))
    return run(recordings, pipeline, back_end or BundleAdjuster(BACK_END))


def aligned_error(run, poses, with_scale: bool) -> tuple[float, float]:
    """Root mean square position error after alignment, and the scale (Umeyama, 1991)."""
    truth = np.array([pose[:3, 3] for pose in run.truth])
    estimate = np.array([pose[:3, 3] for pose in poses])
    a, b = truth - truth.mean(0), estimate - estimate.mean(0)
    u, d, vt = np.linalg.svd(a.T @ b)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    best = np.trace(np.diag(d) @ sign) / (b**2).sum()
    off = (best if with_scale else 1.0) * b @ (u @ sign @ vt).T - a
    return float(np.sqrt((off**2).sum(1).mean())), float(best)


def test_depth_gives_a_metric_trajectory():
    result = slam(circle(np.arange(0, 96, 8.0), with_depth=True))
    assert result.metric
    error, scale = aligned_error(result, result.optimised, with_scale=False)
    assert error < 0.01
    assert scale == pytest.approx(1, abs=0.02)


def test_a_monocular_trajectory_is_right_up_to_scale():
    result = slam(circle(np.arange(0, 96, 8.0)))
    assert not result.metric
    assert all(pose is not None for pose in result.optimised)
    error, _ = aligned_error(result, result.optimised, with_scale=True)
    assert error < 0.02
    assert len(result.landmarks) > 200


def gap(result) -> float:
    """How far frame 36, back at the start, is from frame 0; frame 18 is on the other side."""
    first, opposite, last = (result.optimised[i][:3, 3] for i in (0, 18, 36))
    return float(np.linalg.norm(first - last) / np.linalg.norm(first - opposite))


def test_a_closed_loop_removes_the_drift():
    degrees = np.arange(0, 410, 10.0)
    back_end = Watched(BACK_END)
    closed = slam(circle(degrees, noise_px=1.0), back_end)
    open_end = slam(circle(degrees, noise_px=1.0), keyframes__loop_candidates=0)
    assert len(closed.closures) >= 1
    assert not open_end.closures
    assert gap(closed) < 0.01
    assert gap(closed) < 0.4 * gap(open_end)
    before, _ = aligned_error(open_end, open_end.optimised, with_scale=True)
    after, _ = aligned_error(closed, closed.optimised, with_scale=True)
    assert after < 1.25 * before  # the rest of the circle stays as good as it was
    *live, final = back_end.sizes
    wide = [size for size in live if size > BACK_END.window]
    assert max(wide) == BACK_END.loop_frames  # a loop takes no more than that
    assert len(wide) <= BACK_END.loop_steps * len(closed.closures)
    assert final == len(back_end.scene.poses) > 30


# -- the parts -------------------------------------------------------------------------------------


def random_scene(seed=0, frames=6, points=80, noise_px=0.0):
    """A scene with true poses and landmarks, every point seen by every frame."""
    rng = np.random.default_rng(seed)
    cloud = rng.uniform([-2, -1.5, 4], [2, 1.5, 7], (points, 3))
    scene = Scene()
    for i in range(frames):
        rotation = heading(2.0 * i)
        frame = FrameId(i)
        scene.poses[frame] = pose_of(rotation, np.array([0.3 * i, 0.05 * i, 0.02 * i * i]))
        local = in_camera(scene.poses[frame], cloud)
        rays = local[:, :2] / local[:, 2:]
        rays += noise_px / CAMERA.focal * rng.standard_normal(rays.shape)
        for track, ray in enumerate(rays):
            scene.observe(frame, track, Observation(ray, 0.5 / CAMERA.focal))
    scene.landmarks = dict(enumerate(cloud))
    return scene


def metric_edge(scene: Scene, reference: int, query: int) -> Edge:
    """The true relative pose, said to be good to a millimetre and a milliradian."""
    ends = FrameId(reference), FrameId(query)
    relative = inverse(scene.poses[ends[0]]) @ scene.poses[ends[1]]
    return Edge(*ends, relative, 1e-6 * np.eye(6))


def disturb(scene: Scene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for frame in list(scene.poses)[1:]:
        small = pose_of(heading(rng.normal(0, 0.5)), rng.normal(0, 0.03, 3))
        scene.poses[frame] = scene.poses[frame] @ small
    for track in scene.landmarks:
        scene.landmarks[track] = scene.landmarks[track] + rng.normal(0, 0.05, 3)


@pytest.mark.parametrize("seed", range(3))
def test_adjustment_with_a_metric_pose_recovers_the_exact_scene(seed):
    truth, scene = random_scene(seed), random_scene(seed)
    scene.edges.append(metric_edge(truth, 0, 5))
    disturb(scene, seed)
    report = adjust(scene, list(scene.poses), [], CAMERA.focal, 50, 50.0)
    assert report.cost_after < 1e-3 * report.cost_before
    for frame, pose in truth.poses.items():
        np.testing.assert_allclose(scene.poses[frame], pose, atol=1e-3)
    for track, point in truth.landmarks.items():
        np.testing.assert_allclose(scene.landmarks[track], point, atol=5e-3)


def test_without_scale_the_extent_of_the_scene_stays():
    scene = random_scene()
    disturb(scene, 1)
    before = np.linalg.norm(scene.poses[FrameId(5)][:3, 3] - scene.poses[FrameId(0)][:3, 3])
    adjust(scene, list(scene.poses), [], CAMERA.focal, 50, 50.0)
    after = np.linalg.norm(scene.poses[FrameId(5)][:3, 3] - scene.poses[FrameId(0)][:3, 3])
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("unit", [0.1, 10.0])
def test_a_drifting_map_converges_in_any_unit(unit):
    """A walk whose steps shrink to a half, along landmarks of which each is seen three times."""
    rng = np.random.default_rng(3)
    scene, truth, drift = Scene(), [], np.geomspace(1.0, 0.5, 24)
    for i in range(24):
        truth.append(pose_of(heading(4.0 * i), unit * np.array([0.3 * i, 0.02 * i, 0.1 * i])))
        position = np.zeros(3) if i == 0 else scene.poses[FrameId(i - 1)][:3, 3]
        step = truth[i][:3, 3] - truth[max(i - 1, 0)][:3, 3]
        scene.poses[FrameId(i)] = pose_of(truth[i][:3, :3], position + drift[i] * step)
    for track in range(22 * 20):
        first = track // 20
        local = unit * rng.uniform([-1.5, -1.5, 3], [1.5, 1.5, 40 if track % 4 == 0 else 6])
        point = truth[first + 1][:3, :3] @ local + truth[first + 1][:3, 3]
        for i in range(first, first + 3):
            x, y, depth = in_camera(truth[i], point[None])[0]
            ray = np.array([x, y]) / depth + 0.3 / CAMERA.focal * rng.standard_normal(2)
            scene.observe(FrameId(i), track, Observation(ray, 0.5 / CAMERA.focal))
        anchor = scene.poses[FrameId(first + 1)]
        scene.landmarks[track] = anchor[:3, :3] @ (drift[first] * local) + anchor[:3, 3]
    adjust(scene, list(scene.poses), [], CAMERA.focal, 100, 50.0)
    steps = [
        np.linalg.norm(np.diff([pose[:3, 3] for pose in poses], axis=0), axis=1)
        for poses in (list(scene.poses.values()), truth)
    ]
    ratio = steps[0] / steps[1]
    assert np.abs(np.log(ratio / np.median(ratio))).max() < 0.1


def test_fixed_frames_stay_where_they_are():
    scene = random_scene()
    disturb(scene, 2)
    frames = list(scene.poses)
    held = {frame: scene.poses[frame].copy() for frame in frames[:2]}
    adjust(scene, frames[2:], frames[:2], CAMERA.focal, 20, 50.0)
    for frame, pose in held.items():
        np.testing.assert_allclose(scene.poses[frame], pose, atol=1e-5)


def test_the_covariance_of_a_pose_is_that_of_its_errors():
    """Normalised squared errors of six numbers, 6 in the mean where the covariance is right.

    Huber's loss gives a part of the information away: a little less.
    """
    newest, found = FrameId(5), []
    for seed in range(40):
        truth, scene = random_scene(seed), random_scene(seed, noise_px=0.5)
        frames = list(scene.poses)
        report = adjust(scene, frames[2:], frames[:2], CAMERA.focal, 20, 50.0, newest)
        estimate, true = scene.poses[newest], truth.poses[newest]
        turn = Rotation.from_matrix(estimate[:3, :3] @ true[:3, :3].T).as_rotvec()
        error = np.concatenate([estimate[:3, 3] - true[:3, 3], turn])
        found.append(error @ np.linalg.solve(report.covariance, error))
    assert 4.0 < np.mean(found) < 7.5


def test_no_covariance_unless_it_is_asked_for():
    scene = random_scene()
    assert adjust(scene, list(scene.poses), [], CAMERA.focal, 5, 50.0).covariance is None


def test_outliers_are_dropped_and_do_little_harm():
    truth, scene = random_scene(noise_px=0.3), random_scene(noise_px=0.3)
    scene.edges.append(metric_edge(truth, 0, 5))
    for track in range(8):
        wrong = Observation(np.array([0.4, -0.3]), 0.5 / CAMERA.focal)
        scene.observations[track][FrameId(track % 6)] = wrong
    adjust(scene, list(scene.poses), [], CAMERA.focal, 50, 3.0)
    for track in range(8):
        assert FrameId(track % 6) not in scene.observations[track]
    for frame, pose in truth.poses.items():
        np.testing.assert_allclose(scene.poses[frame][:3, 3], pose[:3, 3], atol=0.03)


def test_a_false_metric_pose_that_claims_to_be_sure_is_let_go():
    truth, scene = random_scene(noise_px=0.3), random_scene(noise_px=0.3)
    scene.edges = [metric_edge(truth, 0, 5), metric_edge(truth, 1, 4)]
    scene.edges[1].metric[:3, 3] += [1.0, 0.2, -0.5]
    adjust(scene, list(scene.poses), [], CAMERA.focal, 50, 50.0)
    for frame, pose in truth.poses.items():
        np.testing.assert_allclose(scene.poses[frame], pose, atol=0.01)


def test_a_pair_that_was_matched_wrongly_does_not_drag_its_frame_away():
    """Landmarks of an old frame, said to be seen all over a frame that looks elsewhere."""
    rng = np.random.default_rng(0)
    back_end = BundleAdjuster()
    pipeline = Pipeline(from_flat(Config, SETTINGS))
    for recording in circle(np.arange(0, 72, 8.0), with_depth=True):
        pairs = pipeline.process(recording.frame).pairs
        for pair in pairs:
            back_end.add(pair.matches, pair.pose, recording.frame.camera)
        back_end.optimise(recording.frame.camera)
    scene, query = back_end.scene, pairs[0].matches.query
    before = scene.poses[query].copy()
    old = next(iter(scene.poses))
    tracks = sorted(scene.tracks_of[old] & scene.landmarks.keys() - scene.tracks_of[query])[:40]
    assert len(tracks) == 40
    rays = np.array([scene.observations[track][old].ray for track in tracks])
    centre = [CAMERA.width / 2, CAMERA.height / 2]
    numbers = np.arange(len(tracks), dtype=np.int32)
    false = dataclasses.replace(
        pairs[0].matches,
        reference=old,
        index_ref=numbers,
        index_query=numbers,
        points_ref=np.float32(rays * CAMERA.focal + centre),
        points_query=np.float32(rng.uniform(20, 200, (len(tracks), 2))),
        scores=np.ones(len(tracks), np.float32),
        inlier=np.ones(len(tracks), bool),
        sigma_px=np.ones(len(tracks), np.float32),
        track_ids=np.array(tracks, np.int64),
    )
    pose = dataclasses.replace(
        pairs[0].pose,
        reference=old,
        translation=np.array([3.0, 1.0, -2.0]),
        covariance=1e-6 * np.eye(6),
    )
    back_end.add(false, pose, CAMERA)
    back_end.optimise(CAMERA)
    np.testing.assert_allclose(scene.poses[query], before, atol=0.01)


def test_resection_finds_the_pose_among_outliers():
    scene = random_scene(noise_px=0.3)
    frame = FrameId(3)
    points = scene.points(range(80))
    rays = np.stack([scene.observations[track][frame].ray for track in range(80)])
    rays[:20] = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2))
    pose, inliers = resect(points, rays, CAMERA.focal, BackEndConfig())
    np.testing.assert_allclose(pose, scene.poses[frame], atol=0.01)
    assert inliers[20:].mean() > 0.9
    assert resect(points[:10], rays[:10], CAMERA.focal, BackEndConfig()) is None


@pytest.mark.parametrize("drift", [1.0, 1.3])
def test_the_pose_graph_spreads_the_drift(drift):
    """A circle whose steps shrink (or not) and turn too far comes together again."""
    scene, truth = Scene(), {}
    pose = np.eye(4)
    for i in range(25):
        angle = 15.0 * i
        truth[i] = pose_of(heading(angle), heading(angle) @ [0, 0, 1.0])
        if i:
            step = inverse(truth[i - 1]) @ truth[i]
            step[:3, :3] = heading(15.3)
            step[:3, 3] /= drift ** (i / 24)
            pose = pose @ step
            scene.edges.append(Edge(FrameId(i - 1), FrameId(i)))
        scene.poses[FrameId(i)] = pose
    gap = np.linalg.norm(pose[:3, 3])
    loop = loops.Loop(FrameId(0), FrameId(24), np.eye(4), loops.Scale(drift, 0.02))
    loops.close(scene, loop)
    end = scene.poses[FrameId(24)]
    assert np.linalg.norm(end[:3, 3]) < 0.1 * gap
    np.testing.assert_allclose(end[:3, :3], np.eye(3), atol=0.02)
    centres = np.array([p[:3, 3] for p in scene.poses.values()])
    radii = np.linalg.norm(centres - centres[:24].mean(0), axis=1)
    assert radii.std() / radii.mean() < 0.06


def test_landmarks_follow_the_frame_that_saw_them_first():
    scene = random_scene(frames=4)
    for i in range(3):
        scene.edges.append(Edge(FrameId(i), FrameId(i + 1)))
    target = scene.poses[FrameId(3)] @ pose_of(np.eye(3), np.array([0.2, 0, 0]))
    before = {track: point.copy() for track, point in scene.landmarks.items()}
    for track in range(40):  # the first 40 are new in the last frame
        for i in range(3):
            scene.forget(FrameId(i), track)
    scene.landmarks.update({track: before[track] for track in range(40)})
    loops.close(scene, loops.Loop(FrameId(0), FrameId(3), target, loops.Scale(1.0, 0.02)))
    moved = np.array([scene.landmarks[t] - before[t] for t in range(80)])
    shift = scene.poses[FrameId(3)][:3, 3] - (target[:3, 3] - [0.2, 0, 0])
    assert np.linalg.norm(moved[40:], axis=1).max() < 1e-6
    assert np.linalg.norm(moved[:40].mean(0)) > 0.3 * np.linalg.norm(shift)


def test_merged_landmarks_bring_their_observations():
    scene = random_scene(frames=3, points=2)
    scene.observations[7] = {FrameId(9): Observation(np.zeros(2), 0.001)}
    scene.tracks_of[FrameId(9)] = {7}
    scene.merge({7: 0})
    assert set(scene.observations[0]) == {FrameId(0), FrameId(1), FrameId(2), FrameId(9)}
    assert scene.tracks_of[FrameId(9)] == {0}
    assert 7 not in scene.observations


def test_discarded_landmarks_leave_nothing():
    scene = random_scene(frames=3, points=4)
    scene.discard([1, 3, 99])
    assert set(scene.landmarks) == set(scene.observations) == {0, 2}
    assert all(tracks == {0, 2} for tracks in scene.tracks_of.values())


def test_a_frame_after_a_gap_goes_on_from_the_last_pose():
    recordings = list(circle(np.arange(0, 80, 8.0)))
    blank = dataclasses.replace(
        recordings[5].frame, keypoints=recordings[5].frame.keypoints.select(np.arange(0))
    )
    recordings[5] = Recording(blank, recordings[5].truth)
    result = slam(recordings)
    assert result.optimised[5] is None
    assert sum(pose is not None for pose in result.optimised) == 9
    kept = dataclasses.replace(
        result,
        truth=[p for i, p in enumerate(result.truth) if i != 5],
    )
    error, _ = aligned_error(kept, [p for p in result.optimised if p is not None], True)
    assert error < 0.02


def test_frames_before_the_map_begins_are_placed_later():
    """The camera stands still at first: nothing can be triangulated until it moves."""
    degrees = np.concatenate([[0.0, 0.2, 0.4], np.arange(8.0, 64, 8.0)])
    result = slam(circle(degrees))
    assert all(pose is not None for pose in result.optimised)
    error, _ = aligned_error(result, result.optimised, with_scale=True)
    assert error < 0.02


def test_scale_survives_thin_overlap():
    """Few keypoints and large turns: each step shares few landmarks with the one before."""
    result = slam(circle(np.arange(0, 180, 15.0), noise_px=0.7))
    assert sum(pose is not None for pose in result.optimised) >= 11
    estimate = np.array([p[:3, 3] for p in result.optimised if p is not None])
    truth = np.array(
        [t[:3, 3] for t, p in zip(result.truth, result.optimised, strict=True) if p is not None]
    )
    ratio = np.linalg.norm(np.diff(estimate, axis=0), axis=1)
    ratio /= np.linalg.norm(np.diff(truth, axis=0), axis=1)
    assert np.abs(np.log(ratio / np.median(ratio))).max() < 0.1
