"""Settings of the example back-end."""

from __future__ import annotations

from dataclasses import dataclass

from superglue_ros.settings import setting


@dataclass(frozen=True)
class BackEndConfig:
    """Settings of the bundle adjuster."""

    window: int = setting(10, "Newest frames whose poses are optimised together.", low=2, high=200)
    fixed: int = setting(
        8, "Older frames that stay fixed: those that share most with the window.", low=1, high=200
    )
    min_parallax_deg: float = setting(
        0.4, "Minimum angle between two rays of a landmark [deg].", low=0.01, high=45.0
    )
    first_parallax_deg: float = setting(
        1.5,
        "Without scale: minimum median parallax of the first pair of the map [deg].",
        low=0.0,
        high=45.0,
    )
    max_error_px: float = setting(
        3.0, "Observations with a larger reprojection error are dropped [px].", low=0.1, high=50.0
    )
    min_landmarks: int = setting(
        20, "Landmarks needed to place a frame by resection.", low=6, high=1000
    )
    loop_landmarks: int = setting(
        10,
        "Old landmarks that must agree with the pose of a loop before it is accepted.",
        low=4,
        high=1000,
    )
    iterations: int = setting(8, "Iterations of the optimiser on the window.", low=1, high=1000)
    loop_iterations: int = setting(
        4,
        "Iterations of each adjustment after a loop was closed; 0 = pose graph only.",
        low=0,
        high=1000,
    )
    loop_steps: int = setting(
        5,
        "Frames over which the adjustment after a loop is spread, that of the loop included.",
        low=1,
        high=100,
    )
    loop_frames: int = setting(
        200,
        "Frames that are adjusted together after a loop: the window and those that share most "
        "landmarks with it, with one another in turn.",
        low=2,
        high=100000,
    )
    cull_share: float = setting(
        0.9,
        "An older frame leaves the map if this share of its landmarks is seen by three others; "
        "1 = all frames stay.",
        low=0.1,
        high=1.0,
    )
    seed: int = setting(0, "Seed of the robust resection.", low=0, high=2**31 - 1)
