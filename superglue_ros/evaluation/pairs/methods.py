"""Methods to compare: a front-end and a matcher of the registries, with their settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import Config, MatcherConfig
from superglue_ros.data.image import resize
from superglue_ros.evaluation.pairs.keypoint_files import KeypointFiles
from superglue_ros.evaluation.pairs.predictions import FeatureCache
from superglue_ros.frontends.base import GreyImage, make_front_end
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.mapping.refinement import refined
from superglue_ros.mapping.rotation import best_turn, is_poor, turned_encodings
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.networks.device import resolve_device
from superglue_ros.networks.weights import (
    PACKAGED,
    match_filter_file,
    superglue_file,
    superpoint_file,
)
from superglue_ros.registry import FRONT_ENDS, MATCHERS, REFINERS
from superglue_ros.settings import to_mapping
from superglue_ros.types import Correspondences, Features, FloatArray


@dataclass(frozen=True)
class MethodSpec:
    """The settings of a front-end and a matcher, which ``config`` names.

    ``keypoints``: a folder of keypoint files that replace detections; the front-end describes
    keypoints without descriptors.
    """

    config: Config
    keypoints: str = ""

    @property
    def front_end(self) -> str:
        """The front-end's name."""
        return self.config.front_end.name

    @property
    def matcher(self) -> str:
        """The matcher's name."""
        return self.config.matcher.name

    def with_matcher(self, name: str, weights: str = "auto") -> MethodSpec:
        """The same front-end with another matcher."""
        return self._with(replace(self.config.matcher, name=name, weights=weights))

    def network_alone(self) -> MethodSpec:
        """With SuperGlue as the paper has it, whose assignment alone makes the matches."""
        return self._with(replace(self.config.matcher, verification=False))

    def _with(self, matcher: MatcherConfig) -> MethodSpec:
        return replace(self, config=replace(self.config, matcher=matcher))

    @property
    def confidence_threshold(self) -> float:
        """Confidence below which matches do not count; 0 for matchers that have none."""
        leaf = MATCHERS[self.matcher].confidence
        return float(getattr(self.config.matcher, leaf)) if leaf else 0.0

    @property
    def label(self) -> str:
        """The method's name in tables and legends."""
        features = FRONT_ENDS[self.front_end].label
        if self.keypoints:
            features = f"keypoint files ({features})"
        label = f"{features} + {MATCHERS[self.matcher].label}"
        if self.matcher == "superglue" and not self.config.matcher.verification:
            label += ", verification off"
        if self.config.refinement == Config().refinement:
            return label
        return f"{label}, refinement {REFINERS[self.config.refinement].label}"

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the predictions: names, settings, and the weights' checksums.

        Thresholds of the confidence are left out: predictions are kept with their confidence, and
        the threshold is applied in evaluation.
        """
        settings = to_mapping(self.config)
        out: dict[str, Any] = {
            "front_end": settings["front_end"],
            "matcher": settings["matcher"],
            "precision": self.config.precision,
        }
        for leaf in {choice.confidence for choice in MATCHERS.values()} - {""}:
            del out["matcher"][leaf]
        files = {"superpoint": superpoint_file(self.config.front_end.weights)}
        weights = self.config.matcher.weights
        files["superglue"] = superglue_file(weights, resolve_device(self.config.device))
        files |= {name: match_filter_file(name, weights) for name in ("pointcn", "oanet")}
        for section in ("front_end", "matcher"):
            del out[section]["weights"]
            if out[section]["name"] in files:
                out[section]["weights"] = checksum(files[out[section]["name"]])
        if self.config.refinement != "none":
            out["refinement"] = self.config.refinement
        if self.config.refinement == "network":
            out["refinement_weights"] = checksum(PACKAGED / "refinement.safetensors")
        if self.keypoints:
            out["front_end"]["keypoints"] = self.keypoints
        return out


class Method:
    """A method ready to run: features of images, and matches between them."""

    def __init__(self, spec: MethodSpec, feature_cache: Path | None = None) -> None:
        self.spec = spec
        device = resolve_device(spec.config.device)
        self._front_end = make_front_end(spec.config, device)
        # All mutual best matches with their confidence; the threshold is applied when judging.
        leaf = MATCHERS[spec.matcher].confidence
        matcher = replace(spec.config.matcher, **({leaf: 0.0} if leaf else {}))  # type: ignore[arg-type]
        self._matcher = make_matcher(replace(spec.config, matcher=matcher), device)
        mutual = replace(spec.config, matcher=MatcherConfig(name="mutual"))
        self._mutual = make_matcher(mutual, device)
        self._refiner = make_refiner(spec.config.refinement)
        self._files: KeypointFiles | None = None
        self._cache: FeatureCache | None = None
        if spec.keypoints:  # they depend on the image's name, not only its content: no cache
            limit = spec.config.front_end.max_keypoints
            self._files = KeypointFiles(Path(spec.keypoints), self._front_end, limit)
        elif feature_cache is not None:
            extractor = spec.fingerprint()["front_end"]
            precision = spec.config.precision
            self._cache = FeatureCache(feature_cache, {"precision": precision, **extractor})

    def extract(self, image: GreyImage, name: str) -> Features:
        """Features of a grey (H, W) uint8 image; ``name`` finds it in a folder of keypoints."""
        if self._files is not None:
            return self._files.extract(image, name)
        if self._cache is not None:
            return self._cache.get_or_make(image, lambda: self._front_end.extract(image))
        return self._front_end.extract(image)

    def match(
        self, features0: Features, features1: Features, image1: Callable[[], GreyImage]
    ) -> Correspondences:
        """Matches of two images, by falling confidence; ``image1`` reads the second one."""
        if not self._turns:
            return match_pair(self._matcher, features0, features1)
        reference = self._matcher.prepare(features0)
        found = self._matcher.match_pairs([reference], [self._matcher.prepare(features1)])[0]
        threshold = self.spec.confidence_threshold
        if not is_poor(found, min(len(features0), len(features1)), threshold):
            return found
        image = resize(image1(), self.spec.config.front_end.max_size)
        encodings = turned_encodings(features1, image, self._front_end, self._matcher)
        return best_turn(found, reference, encodings, self._matcher, threshold)

    def match_mutual(self, features0: Features, features1: Features) -> NDArray[np.int32]:
        """Mutual nearest neighbours (L, 2) of the same features."""
        found = match_pair(self._mutual, features0, features1)
        return np.stack([found.index_ref, found.index_query], axis=1)

    @property
    def refines(self) -> bool:
        """Whether :meth:`refine` moves anything."""
        detected = self._files is None and not self._front_end.exact
        return detected and self.spec.config.refinement != "none"

    @property
    def _turns(self) -> bool:
        """Whether turned images are tried."""
        detected = self._files is None and not self._front_end.exact
        return detected and self.spec.config.front_end.rotation != "none"

    def refine(
        self,
        images: tuple[GreyImage, GreyImage],
        points0: FloatArray,
        points1: FloatArray,
        turns: int = 0,
    ) -> FloatArray:
        """Matched pixels (K, 2) of image 1, refined as the settings say; ``turns`` as matched."""
        size = self.spec.config.front_end.max_size
        resized = [resize(image, size) for image in images]
        found = refined(self._refiner, resized[0], resized[1], points0, points1, turns)
        return found.points


def checksum(file: Path) -> str:
    """SHA-256 of a weights file."""
    if not file.is_file():
        return f"missing: {file}"
    return hashlib.sha256(file.read_bytes()).hexdigest()
