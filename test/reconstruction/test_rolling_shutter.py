"""A rolling shutter found from a map, on a camera whose motion and readout time are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.errors import ConfigError
from superglue_ros.geometry.camera import Camera
from superglue_ros.reconstruction import mapper
from superglue_ros.reconstruction.rolling_shutter import (
    Shutter,
    parse_readout,
    without_rolling_shutter,
)
from test.reconstruction.colmap_models import model_of

CAMERA = Camera(
    width=320,
    height=240,
    matrix=np.array([[260.0, 0, 160], [0, 260, 120], [0, 0, 1]]),
    distortion=np.array([-0.1, 0.02, 0, 0]),
)
INTERVAL_S = 0.1
READOUT_S = 0.012
IMAGES = 30


def pose_at(seconds: np.ndarray) -> tuple[Rotation, np.ndarray]:
    """A walk along a wall that looks left and right, up and down: about 40 degrees a second."""
    t = np.asarray(seconds)
    turn = np.stack([0.12 * np.sin(2.9 * t), 0.5 * np.sin(1.3 * t), 0.1 * np.sin(2.3 * t)], -1)
    place = np.stack([0.7 * t, 0.1 * np.sin(3 * t), 0.2 * np.cos(2 * t)], -1)
    return Rotation.from_rotvec(turn), place


def recorded(readout_s: float, seed: int = 0) -> tuple[Any, np.ndarray, dict[str, int]]:
    """A model near the truth of images with 0.2 px of noise, true centres, and stamps by name."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-3, -2, 2.5], [5, 2, 6], (400, 3))
    stamps = INTERVAL_S * np.arange(IMAGES)
    pixels, visible, poses = [], [], []
    for stamp in stamps:
        seen = np.full((len(points), 2), 120.0)
        for _ in range(6):  # the row decides when it is exposed, and that in which row it is seen
            times = stamp + readout_s * ((seen[:, 1] + 0.5) / CAMERA.height - 0.5)
            turn, place = pose_at(times)
            local = turn.inv().apply(points - place)
            seen = np.nan_to_num(CAMERA.project(local), nan=-1e3).clip(-1e3, 1e3)
        inside = ((seen >= 0) & (seen <= [319, 239])).all(axis=1) & (local[:, 2] > 0.5)
        pixels.append(seen[inside] + rng.normal(0, 0.2, (inside.sum(), 2)))
        visible.append(inside)
        turn, place = pose_at(stamp)
        pose = np.eye(4)
        pose[:3, :3] = (turn * Rotation.from_rotvec(rng.normal(0, 0.002, 3))).as_matrix()
        pose[:3, 3] = place + rng.normal(0, 0.01, 3)
        poses.append(pose)
    often = np.sum(visible, axis=0) >= 4
    model = model_of(
        CAMERA,
        poses,
        points[often] + rng.normal(0, 0.02, (often.sum(), 3)),
        [seen[often[here]] for seen, here in zip(pixels, visible, strict=True)],
        np.stack(visible)[:, often],
    )
    names = {f"{k + 1}.png": round(stamp * 1e9) for k, stamp in enumerate(stamps)}
    return model, pose_at(stamps)[1], names


def centre_error(model: Any, truth: np.ndarray) -> float:
    """Root mean square [m] after alignment by a similarity."""
    names = [f"{k + 1}.png" for k in range(len(truth))]
    mapper.align(model, dict(zip(names, truth, strict=True)))
    poses = mapper.poses_of(model)
    found = np.stack([poses[name][:3, 3] for name in names])
    return float(np.sqrt(((found - truth) ** 2).sum(axis=1).mean()))


def corrected(model: Any, stamps: dict[str, int], readout_s: float | None = None) -> Shutter:
    found = without_rolling_shutter(
        model, stamps, lambda one: mapper.adjust(one, refine_cameras=False), readout_s
    )
    assert found is not None
    return found


@pytest.mark.parametrize("readout_s", [READOUT_S, -READOUT_S])
def test_the_readout_time_is_found_and_the_map_straightened(readout_s: float) -> None:
    model, truth, stamps = recorded(readout_s)
    found = corrected(model, stamps)
    assert found.readout_s == pytest.approx(readout_s, rel=0.04)
    assert found.cost_after < 0.85 * found.cost_before
    mapper.adjust(model, refine_cameras=False)
    assert centre_error(found.model, truth) < 0.35 * centre_error(model, truth)


def test_a_global_shutter_is_left_alone() -> None:
    model, _, stamps = recorded(0.0)
    found = corrected(model, stamps)
    assert found.readout_s == 0
    assert found.model is model


def test_a_known_readout_time_is_taken_as_it_is() -> None:
    model, _, stamps = recorded(READOUT_S)
    assert corrected(model, stamps, 0.008).readout_s == 0.008


@pytest.mark.parametrize("apart_s", [0.0, 2.0])
def test_without_images_shortly_before_or_after_nothing_is_tried(apart_s: float) -> None:
    model, _, stamps = recorded(READOUT_S)
    apart = {name: int(k * apart_s * 1e9) for k, name in enumerate(stamps)}
    assert without_rolling_shutter(model, apart, lambda _: pytest.fail("adjusted")) is None


def test_words_of_the_option() -> None:
    assert parse_readout("auto") is None
    assert parse_readout("off") == 0
    assert parse_readout("-0.02") == -0.02
    for word in ("fast", "nan", "20"):
        with pytest.raises(ConfigError, match=f"--rolling-shutter {word}: give auto, off, or"):
            parse_readout(word)
