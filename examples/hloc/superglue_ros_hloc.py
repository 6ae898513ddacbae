"""SuperPoint and SuperGlue as an extractor and a matcher of hloc.

    from hloc import extract_features, match_features
    from superglue_ros_hloc import FEATURES, MATCHES, register

    register()
    features = extract_features.main(FEATURES, images, outputs)
    match_features.main(MATCHES, pairs, FEATURES["output"], outputs)

From there on hloc goes as with its own models.
"""

from __future__ import annotations

from pathlib import Path

FEATURES = {
    "output": "feats-superglue_ros-n2048-r1600",
    "model": {"name": "superglue_ros", "max_keypoints": 2048},
    "preprocessing": {"grayscale": True, "resize_max": 1600},
}
MATCHES = {
    "output": "matches-superglue_ros",
    "model": {"name": "superglue_ros", "match_threshold": 0.2},
}


def register() -> None:
    """Let hloc find the model ``superglue_ros``: it looks for modules of its own packages."""
    import hloc.extractors
    import hloc.matchers

    for package in (hloc.extractors, hloc.matchers):
        folder = str(Path(__file__).parent / package.__name__.rpartition(".")[2])
        if folder not in package.__path__:
            package.__path__.append(folder)
