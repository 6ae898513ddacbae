"""Sequences of every layout as view sets: labels that fit what the camera saw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError
from superglue_ros.geometry.ground_truth import INDOOR, OUTDOOR
from superglue_ros.training.data.sequence_views import (
    PosedFrames,
    SequenceDrawer,
    every_sequence,
)
from superglue_ros.training.recipes import SequenceSource, ViewRecipe

from ...recorded_room import SIZE, WRITERS, Recorded, write_megadepth, write_plain

LENS = np.array([0.2624, -0.9531, -0.0054, 0.0026, 1.1633])  # that of freiburg1: a wide one
NO_LENS = np.zeros(0)


def label_errors(frames: PosedFrames, size: tuple[int, int]) -> np.ndarray:
    """How far from where their labels say corners of view 0 are found by tracking into view 1."""
    views = frames.views([0, 1], size)
    first, second = views.images
    corners = cv2.goodFeaturesToTrack(first, 120, 0.02, 12)
    projection = views.project(corners[:, 0], 0, 1)
    seen = ~projection.hidden & ~projection.unknown
    start = projection.points[seen].astype(np.float32)[:, None]
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, corners[seen], start.copy(), winSize=(21, 21), maxLevel=2,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    assert seen.sum() > 30
    return np.linalg.norm(tracked - start, axis=2)[found.astype(bool)]


@pytest.mark.parametrize("layout", WRITERS)
def test_labels_fit_the_images_in_every_layout(tmp_path, layout):
    path = WRITERS[layout](tmp_path / "s", Recorded(NO_LENS))
    sequence = open_sequence(path)  # recognised by its files
    assert len(sequence) == 3
    frames = PosedFrames(sequence)
    assert frames.thresholds == (OUTDOOR if layout == "megadepth" else INDOOR)
    assert np.median(label_errors(frames, SIZE)) < 0.5
    assert np.median(label_errors(frames, (320, 240))) < 0.5


@pytest.mark.parametrize("layout", ["plain", "tum"])
def test_labels_fit_images_of_a_lens_that_bends_lines(tmp_path, layout):
    """They are rectified; by the intrinsics alone the labels would be off by pixels."""
    recorded = Recorded(LENS)
    frames = PosedFrames(open_sequence(WRITERS[layout](tmp_path / "s", recorded)))
    assert np.median(label_errors(frames, SIZE)) < 0.7
    frames._rectification = None
    assert np.median(label_errors(frames, SIZE)) > 1.5


def test_views_are_cropped_and_resized_with_their_intrinsics(tmp_path):
    recorded = Recorded(NO_LENS, count=1)
    frames = PosedFrames(open_sequence(write_plain(tmp_path / "s", recorded)))
    view = frames.view(0, (240, 240))
    assert view.image.shape == view.depth.shape == (240, 240)
    # 480 of 640 columns stay, from column 80 on; then half the resolution.
    m = recorded.matrix
    expected = [
        [m[0, 0] / 2, 0, (m[0, 2] - 80 + 0.5) / 2 - 0.5],
        [0, m[1, 1] / 2, (m[1, 2] + 0.5) / 2 - 0.5],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(view.matrix, expected)


def test_frames_without_depth_or_pose_are_left_out(tmp_path):
    folder = write_plain(tmp_path / "s", Recorded(NO_LENS))
    rows = (folder / "images.txt").read_text().splitlines()
    rows[1] = rows[1].rsplit(" ", 1)[0]
    (folder / "images.txt").write_text("\n".join(rows))
    truth = (folder / "groundtruth.tum").read_text().splitlines()
    (folder / "groundtruth.tum").write_text("\n".join(truth[:2]))
    frames = PosedFrames(open_sequence(folder))
    assert [frames.view(i, SIZE) is not None for i in range(3)] == [True, False, False]


def recipe_of(folder: Path, **settings) -> ViewRecipe:
    source = SequenceSource(folder=str(folder), gap=settings.pop("gap", (1, 2)))
    return ViewRecipe(source="sequences", sequences=(source,), width=320, height=240, **settings)


def test_drawn_views_share_as_much_as_the_recipe_says(tmp_path):
    folder = write_plain(tmp_path / "s", Recorded(NO_LENS, count=6, step=6))
    wide = SequenceDrawer(recipe_of(folder, overlap=(0.0, 1.0), gap=(1, 5)))
    shared = [wide(np.random.default_rng(seed)).overlap(0, 1) for seed in range(25)]
    low, high = np.quantile(shared, [0.3, 0.7])
    assert high > low
    narrow = SequenceDrawer(recipe_of(folder, overlap=(float(low), float(high)), gap=(1, 5)))
    for seed in range(10):
        assert low <= narrow(np.random.default_rng(seed)).overlap(0, 1) <= high
    with pytest.raises(DataError, match=r"share 1\.1 to 1\.2 of their area: widen overlap"):
        SequenceDrawer(recipe_of(folder, overlap=(1.1, 1.2)))(np.random.default_rng(0))


def test_photographs_without_order_are_paired_at_random(tmp_path):
    folder = write_plain(tmp_path / "s", Recorded(NO_LENS, count=4, step=2))
    draw = SequenceDrawer(recipe_of(folder, overlap=(0.0, 1.0), gap=(0, 0)))
    truth = open_sequence(folder)
    seen = set()
    for seed in range(30):
        poses = draw(np.random.default_rng(seed)).poses
        places = [next(k for k in range(4) if np.allclose(truth.pose(k), pose)) for pose in poses]
        seen.add(tuple(places))
    assert any(a > b for a, b in seen)
    assert len(seen) > 6
    assert all(a != b for a, b in seen)


def places_of(views, sequence) -> tuple[int, ...]:
    frames = range(len(sequence))
    return tuple(
        next(k for k in frames if np.allclose(sequence.pose(k), pose)) for pose in views.poses
    )


def test_photographs_are_paired_by_their_covisibility_scores(tmp_path):
    """Of both directions the lower score counts, as D2-Net's scene files and the paper have it."""
    scores = np.full((5, 5), 0.05, np.float32)
    scores[0, 1], scores[1, 0] = 0.6, 0.3
    scores[1, 3], scores[3, 1] = 0.9, 0.5
    scores[2, 3], scores[3, 2] = 0.9, 0.8  # too much
    scores[2, 4], scores[4, 2] = 0.5, 0.05  # too little one way
    scene = write_megadepth(tmp_path, Recorded(NO_LENS, count=5, step=1), scores)
    sequence = open_sequence(scene)
    np.testing.assert_array_equal(sequence.covisibility, scores)
    np.testing.assert_array_equal(sequence.select([3, 1]).covisibility, scores[[3, 1]][:, [3, 1]])

    draw = SequenceDrawer(recipe_of(scene, overlap=(0.1, 0.7), gap=(0, 0)))
    pairs = {places_of(draw(np.random.default_rng(seed)), sequence) for seed in range(24)}
    assert pairs == {(0, 1), (1, 0), (1, 3), (3, 1)}
    chain = SequenceDrawer(recipe_of(scene, overlap=(0.1, 0.7), gap=(0, 0), views=3))
    chains = {places_of(chain(np.random.default_rng(seed)), sequence) for seed in range(12)}
    assert chains == {(0, 1, 3), (3, 1, 0)}

    np.savez(scene, **{**np.load(scene, allow_pickle=True), "overlap_matrix": scores})
    with pytest.raises(DataError, match=r"overlap_matrix must hold .* of the 6 images, not .*5, 5"):
        open_sequence(scene)


def test_a_pattern_stands_for_the_sequences_it_matches(tmp_path):
    for name in ("scene1", "scene0", "other"):
        (tmp_path / name).mkdir()
    found = every_sequence([SequenceSource(str(tmp_path / "scene*"), gap=(2, 5))])
    assert [Path(source.folder).name for source in found] == ["scene0", "scene1"]
    assert {source.gap for source in found} == {(2, 5)}
    with pytest.raises(DataError, match=r"no sequence is at .*room\*: check sequences"):
        every_sequence([SequenceSource(str(tmp_path / "room*"))])


def test_a_recipe_without_sequences_is_refused():
    with pytest.raises(DataError, match="names no sequences"):
        SequenceDrawer(ViewRecipe(source="sequences"))
