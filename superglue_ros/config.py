"""The tree of settings of the pipeline; YAML, ROS parameters and command lines fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from superglue_ros.errors import ConfigError
from superglue_ros.registry import ESTIMATORS, FRONT_ENDS, MATCHERS, REFINERS
from superglue_ros.settings import build, setting


@dataclass(frozen=True)
class FrontEndConfig:
    """Detection and description of keypoints."""

    name: str = setting("superpoint", "Local features.", choices=FRONT_ENDS, fixed=True)
    weights: str = setting(
        "", "SuperPoint weights file; empty takes the package's own.", fixed=True
    )
    max_keypoints: int = setting(
        1024,
        "Keypoints per image, best first; the limit for those of an external front-end too.",
        low=1,
        high=8192,
    )
    threshold: float = setting(
        0.005, "SuperPoint detection threshold (probability).", low=0.0, high=1.0
    )
    nms_radius: int = setting(4, "Non-maximum suppression radius [px].", low=0, high=32)
    subpixel: bool = setting(
        True,
        "SuperPoint keypoints lie where the detector's probability around them is centred; false "
        "leaves them at whole pixels.",
    )
    border: int = setting(
        4, "Keypoints this near the image border are dropped [px].", low=0, high=64
    )
    rotation: str = setting(
        "none",
        "quarter: where few keypoints match, the image is tried in three quarter turns too. For "
        "SuperPoint, with a matcher that rejects wrong matches.",
        choices=("none", "quarter"),
    )
    max_size: int = setting(
        640,
        "Longer image side fed to the network [px]; larger images are shrunk; 0 = never.",
        low=0,
        high=8192,
    )


@dataclass(frozen=True)
class MatcherConfig:
    """Matching of two sets of local features."""

    name: str = setting(
        "superglue",
        "Matcher.",
        choices=MATCHERS,
        fixed=True,
    )
    weights: str = setting(
        "auto",
        "SuperGlue weights: small or wide, the package's own, or a file; auto takes wide on a GPU "
        "and small on a CPU. Of pointcn and oanet: a file, or auto for the package's own.",
        fixed=True,
    )
    threshold: float = setting(
        0.2,
        "SuperGlue: minimum confidence of a match: the probability that it is right, or without "
        "verification the assignment probability.",
        low=0.0,
        high=1.0,
    )
    verification: bool = setting(
        True,
        "SuperGlue: judge a match also by whether it moves as those around it and as the whole "
        "image do, and add mutual nearest neighbours that do; false: by its assignment probability "
        "alone, as the paper.",
        fixed=True,
    )
    sinkhorn_iterations: int = setting(100, "SuperGlue: Sinkhorn iterations T.", low=1, high=1000)
    top_k: int = setting(
        0,
        "SuperGlue: keypoints that each block of keypoints attends to, which saves time from 2048 "
        "keypoints on; 0: as the weights say, all.",
        low=0,
        high=4096,
        fixed=True,
    )
    hierarchy: int = setting(
        0,
        "SuperGlue: match within clusters of about 2^hierarchy keypoints, which saves time from "
        "4096 keypoints on; 0: as the weights say, all at once.",
        low=0,
        high=12,
        fixed=True,
    )
    prune: float = setting(
        0.0,
        "SuperGlue: attention weights up to this count as zero; 0: as the weights say, none.",
        low=0.0,
        high=0.99,
        fixed=True,
    )
    filter_threshold: float = setting(
        0.5, "pointcn, oanet: minimum probability that a match is right.", low=0.0, high=1.0
    )
    prior: str = setting(
        "none",
        "motion: a frame is matched near the places that the last frames predict, and by the "
        "matcher only where that is not good enough or the frame becomes a keyframe.",
        choices=("none", "motion"),
    )
    ratio: float = setting(
        0.8,
        "ratio: maximum of the distance to the best over that to the second best.",
        low=0.0,
        high=1.0,
    )
    max_distance: float = setting(
        0.7, "distance: maximum distance of unit-length descriptors.", low=0.0, high=2.0
    )


@dataclass(frozen=True)
class GeometryConfig:
    """Robust relative pose of two frames."""

    estimator: str = setting(
        "poselib",
        "Robust estimator of the essential matrix.",
        choices=ESTIMATORS,
    )
    threshold_px: float = setting(1.0, "Inlier threshold [px].", low=0.05, high=20.0)
    confidence: float = setting(
        0.9999, "Confidence of the robust estimator.", low=0.5, high=0.9999999
    )
    max_iterations: int = setting(
        2000, "Maximum iterations of the robust estimator.", low=10, high=100000
    )
    min_matches: int = setting(15, "Fewer matches than this give status FEW.", low=5, high=10000)
    min_inliers: int = setting(
        12, "Fewer inliers than this give status REJECTED.", low=5, high=10000
    )
    min_inlier_share: float = setting(
        0.15, "A smaller share of inliers gives status REJECTED.", low=0.0, high=1.0
    )
    min_significance: float = setting(
        6.0,
        "Powers of ten by which the inliers' agreement must exceed chance, or status REJECTED.",
        low=-1000.0,
        high=1000.0,
    )
    min_parallax_deg: float = setting(
        0.5,
        "Smaller median parallax gives status ROTATION_ONLY: no translation direction [deg].",
        low=0.0,
        high=45.0,
    )
    systematic_px: float = setting(
        1.0,
        "Error common to neighbouring matches, which does not average out; for the "
        "covariance: calibration, rolling shutter, poor synchronisation [px].",
        low=0.0,
        high=20.0,
    )
    readout_s: float = setting(
        0.0,
        "Rolling shutter: time from the exposure of an image's first row to that of its last, "
        "negative from the bottom to the top [s]; matched pixels are those of a global shutter "
        "then. 0 = all rows at once.",
        low=-0.2,
        high=0.2,
    )
    depth_noise: float = setting(
        0.02, "Standard deviation of depth as a share of the depth, for PnP.", low=0.0, high=1.0
    )
    depth_systematic: float = setting(
        0.04,
        "Relative depth error common to neighbouring matches, which does not average out; "
        "for the covariance of PnP: calibration, registration, flying "
        "pixels.",
        low=0.0,
        high=1.0,
    )
    seed: int = setting(0, "Seed of the robust estimator.", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class KeyframesConfig:
    """Which frames are kept to match later ones against."""

    window: int = setting(1, "Keyframes each frame is matched against.", low=1, high=32)
    sequential: bool = setting(False, "Match each frame against the one before it too.")
    max_keyframes: int = setting(
        200, "Keyframes kept in the map; the most redundant one goes first.", low=1, high=100000
    )
    min_keypoints: int = setting(
        16, "A frame with fewer keypoints never becomes a keyframe.", low=0, high=8192
    )
    min_matched_share: float = setting(
        0.3,
        "A frame that shares less than this part of the reference's keypoints becomes a keyframe.",
        low=0.0,
        high=1.0,
    )
    min_coverage: float = setting(
        0.4,
        "A frame becomes a keyframe when less than this part of its textured area is matched.",
        low=0.0,
        high=1.0,
    )
    max_parallax_deg: float = setting(
        6.0,
        "A frame with more median parallax to the reference keyframe becomes one [deg].",
        low=0.0,
        high=90.0,
    )
    min_matches: int = setting(
        30,
        "A frame with fewer matches to the reference keyframe becomes a keyframe.",
        low=0,
        high=10000,
    )
    loop_candidates: int = setting(
        1,
        "Old keyframes that each new keyframe is matched against to close loops; 0 = off.",
        low=0,
        high=32,
    )
    loop_min_gap: int = setting(
        10, "Number of newest keyframes that are no loop candidates.", low=1, high=10000
    )
    loop_confirmations: int = setting(
        1,
        "Keyframes after the one that sights a loop that must agree with it before it is closed; "
        "0 = none.",
        low=0,
        high=10,
    )
    loop_similarity: float = setting(
        0.75,
        "Minimum similarity of a loop candidate, as a fraction of the reference keyframe's.",
        low=0.0,
        high=2.0,
    )
    loop_min_inliers: int = setting(
        30, "A loop with fewer inliers is not closed.", low=5, high=10000
    )
    loop_merge_inliers: int = setting(
        45,
        "A loop with fewer inliers is published but merges no landmarks: merging cannot be undone.",
        low=5,
        high=10000,
    )
    relocalise_keyframes: int = setting(
        20,
        "Keyframes, the most similar first, that a frame is matched against after tracking is "
        "lost; 0 = all.",
        low=0,
        high=100000,
    )
    relocalise_budget_s: float = setting(
        0.0,
        "Time limit for starting on these keyframes, for live use on a slow machine: results then "
        "depend on its speed [s]; 0 = no limit.",
        low=0.0,
        high=60.0,
    )
    lost_frames: int = setting(
        1,
        "After this many lost frames in a row the next one starts a new part of the map.",
        low=0,
        high=10000,
    )


@dataclass(frozen=True)
class Config:
    """All settings of the pipeline."""

    device: str = setting(
        "auto",
        "Where the networks run: auto takes the GPU where there is one, or e.g. cpu, cuda:0.",
        fixed=True,
    )
    precision: str = setting(
        "auto",
        "Precision of the networks: auto takes a lower one where that is faster. One that loses "
        "matches of photographs is refused. tfloat32 is for GPUs.",
        choices=("auto", "float32", "tfloat32", "bfloat16", "float16"),
        fixed=True,
    )
    backend: str = setting(
        "torch",
        "Runtime of the networks: torch, on a GPU as CUDA graphs; eager, torch without them; "
        "compiled is torch.compile; onnx runs the graphs in onnx_folder, auto the faster of torch "
        "and onnx where both give the same.",
        choices=("torch", "eager", "compiled", "onnx", "auto"),
        fixed=True,
    )
    onnx_folder: str = setting(
        "", "Folder that `superglue-ros export` wrote, for backend onnx or auto.", fixed=True
    )
    refinement: str = setting(
        "network",
        "Refinement of matched pixels by the images around them, for front-ends whose keypoints "
        "are not exact: none, lk (Lucas-Kanade), or network, which also states covariances.",
        choices=REFINERS,
    )
    place_weights: str = setting(
        "auto",
        "Weights that `superglue-ros train places` made: of the global descriptors by which images "
        "of one place are found, for loops, relocalisation and retrieval. A file, or auto for the "
        "package's own, and VLAD for descriptors that those are not made for.",
        fixed=True,
    )
    robot: str = setting("", "Robot name in frame ids; empty where there is one robot.", fixed=True)
    front_end: FrontEndConfig = field(default_factory=FrontEndConfig)
    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    keyframes: KeyframesConfig = field(default_factory=KeyframesConfig)


PRESETS: dict[str, dict[str, Any]] = {
    "indoor": {"front_end": {"max_size": 640, "max_keypoints": 1024, "nms_radius": 4}},
    "outdoor": {"front_end": {"max_size": 1600, "max_keypoints": 2048, "nms_radius": 3}},
    "homography": {"front_end": {"max_size": 640, "max_keypoints": 512, "nms_radius": 4}},
}
"""Settings of the paper's experiments, where they differ from each other (appendix B); its
threshold of 0.2 and 100 Sinkhorn iterations are the defaults, ``matcher.verification`` and
``refinement`` are not the paper's. :func:`preset` gives a whole :class:`Config`."""


def preset(name: str) -> Config:
    """The settings of the paper's experiment ``name``. Raises :class:`ConfigError`."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return build(Config, PRESETS[name])
