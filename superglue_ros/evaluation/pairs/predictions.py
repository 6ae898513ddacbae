"""Predictions: features and matches of every pair, computed once, stored, and evaluated from files.

A folder of predictions stores its configuration. It refuses another one, so that results of two
configurations never mix; with the same one an interrupted run continues.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import load_arrays
from superglue_ros.errors import DataError, ImageError, SuperglueError
from superglue_ros.types import Correspondences, Features

GreyImage = NDArray[np.uint8]


class PairCase(Protocol):
    """Two images to match. ``keys`` name them uniquely: equal keys are equal images."""

    @property
    def keys(self) -> tuple[str, str]:
        """Names of image 0 and image 1."""
        ...

    def image(self, which: int) -> GreyImage:
        """Grey image 0 or 1; raises :class:`DataError` or :class:`ImageError`, naming it."""
        ...


class PairMethod(Protocol):
    """A predictor; see :class:`superglue_ros.evaluation.pairs.methods.Method`."""

    def extract(self, image: GreyImage, name: str) -> Features:
        """Features of one image."""
        ...

    def match(
        self, features0: Features, features1: Features, image1: Callable[[], GreyImage]
    ) -> Correspondences:
        """Matches of two images; ``image1`` reads the second one."""
        ...

    def match_mutual(self, features0: Features, features1: Features) -> NDArray[np.int32]:
        """Mutual nearest neighbours (L, 2) of the same features, to compare with."""
        ...

    @property
    def refines(self) -> bool:
        """Whether :meth:`refine` moves anything."""
        ...

    def refine(
        self,
        images: tuple[GreyImage, GreyImage],
        points0: NDArray[np.float32],
        points1: NDArray[np.float32],
        turns: int = 0,
    ) -> NDArray[np.float32]:
        """Refined pixels (K, 2) of image 1, which was turned by ``turns`` quarters to match."""
        ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """Keypoints (N, 2) float32 of both images, matches (K, 2) int32 with confidence (K,) float32.

    ``seconds`` (3,): extraction of image 0 and of image 1 (0 where kept from an earlier pair), and
    matching with refinement. ``size0`` and ``size1``: width and height. ``refined1`` (K, 2): pixels
    of the matches in image 1, where the method refines them. ``mutual`` (L, 2): mutual nearest
    neighbours on the same features; None in predictions stored by versions that did not keep them.
    """

    keypoints0: NDArray[np.float32]
    keypoints1: NDArray[np.float32]
    matches: NDArray[np.int32]
    confidence: NDArray[np.float32]
    seconds: NDArray[np.float64]
    size0: tuple[int, int]
    size1: tuple[int, int]
    refined1: NDArray[np.float32] | None = None
    mutual: NDArray[np.int32] | None = None

    def above(self, threshold: float) -> Prediction:
        """The same with the matches of more than this confidence only."""
        return self.select(self.confidence > threshold)

    def select(self, keep: NDArray[np.bool_]) -> Prediction:
        """The same with the matches where ``keep`` (K,) holds only."""
        return replace(
            self,
            matches=self.matches[keep],
            confidence=self.confidence[keep],
            refined1=None if self.refined1 is None else self.refined1[keep],
        )

    @property
    def points0(self) -> NDArray[np.float32]:
        """Matched pixels (K, 2) of image 0."""
        return self.keypoints0[self.matches[:, 0]]

    @property
    def points1(self) -> NDArray[np.float32]:
        """Matched pixels (K, 2) of image 1, refined where the method does that."""
        return self.keypoints1[self.matches[:, 1]] if self.refined1 is None else self.refined1


@dataclass(frozen=True)
class Missing:
    """A pair that could not be predicted, and why."""

    reason: str


class PredictionStore:
    """A folder of predictions made by one configuration.

    Raises :class:`DataError` where the folder was made by another one, naming what differs;
    ``overwrite`` deletes them instead.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(fingerprint))
        file = folder / "made_by.json"
        if overwrite:
            for old in folder.glob("*.npz"):
                old.unlink()
            file.unlink(missing_ok=True)
        if file.is_file():
            try:
                made_by = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{file} is damaged: use --overwrite to start over") from error
            changed = differences(made_by, wanted)
            if changed:
                raise DataError(
                    f"the predictions in {folder} were made with another configuration "
                    f"({'; '.join(changed[:5])}): give another --output, or --overwrite"
                )
        else:
            _write_whole(file, json.dumps(wanted, indent=1, sort_keys=True).encode())

    def get(self, index: int) -> Prediction | None:
        """The stored prediction of pair ``index``; None if it is missing or damaged."""
        file = self._file(index)
        try:
            a = load_arrays(file)
            width0, height0, width1, height1 = (int(v) for v in a["sizes"])
            return Prediction(
                keypoints0=a["keypoints0"],
                keypoints1=a["keypoints1"],
                matches=a["matches"],
                confidence=a["confidence"],
                seconds=a["seconds"],
                size0=(width0, height0),
                size1=(width1, height1),
                refined1=a.get("refined1"),
                mutual=a.get("mutual"),
            )
        except (DataError, KeyError, ValueError, TypeError, OverflowError):
            return None

    def put(self, index: int, prediction: Prediction) -> None:
        """Store one prediction atomically."""
        arrays = {
            "keypoints0": prediction.keypoints0,
            "keypoints1": prediction.keypoints1,
            "matches": prediction.matches,
            "confidence": prediction.confidence,
            "seconds": prediction.seconds,
            "sizes": np.array([*prediction.size0, *prediction.size1]),
        }
        for name in ("refined1", "mutual"):
            if (values := getattr(prediction, name)) is not None:
                arrays[name] = values
        temporary = self._file(index).with_suffix(".part")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(self._file(index))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def predict_all(
    cases: Sequence[PairCase],
    make_method: Callable[[], PairMethod],
    store: PredictionStore,
    keep_images: int = 16,
) -> Iterator[Prediction | Missing]:
    """Predictions of all cases in order, from the store where it has them.

    The method is only created if predictions are missing. Features of the last ``keep_images``
    images are cached, since pairs share images.
    """
    method: PairMethod | None = None
    remembered: OrderedDict[str, Features] = OrderedDict()

    def features(case: PairCase, which: int, method: PairMethod) -> tuple[Features, float]:
        key = case.keys[which]
        if key in remembered:
            remembered.move_to_end(key)
            return remembered[key], 0.0
        image = case.image(which)
        started = time.perf_counter()
        found = method.extract(image, key)
        seconds = time.perf_counter() - started
        remembered[key] = found
        if len(remembered) > keep_images:
            remembered.popitem(last=False)
        return found, seconds

    for index, case in enumerate(cases):
        kept = store.get(index)
        if kept is not None:
            yield kept
            continue
        method = method or make_method()
        try:
            features0, seconds0 = features(case, 0, method)
            features1, seconds1 = features(case, 1, method)
        except (DataError, ImageError) as error:
            yield Missing(str(error))
            continue
        started = time.perf_counter()
        found = method.match(features0, features1, partial(case.image, 1))
        seconds = time.perf_counter() - started
        refined1 = None
        if method.refines:
            images = case.image(0), case.image(1)
            started = time.perf_counter()
            refined1 = method.refine(
                images,
                features0.keypoints[found.index_ref],
                features1.keypoints[found.index_query],
                found.turns,
            )
            seconds += time.perf_counter() - started
        prediction = Prediction(
            keypoints0=features0.keypoints,
            keypoints1=features1.keypoints,
            matches=np.stack([found.index_ref, found.index_query], axis=1),
            confidence=found.scores,
            seconds=np.array([seconds0, seconds1, seconds]),
            size0=(features0.width, features0.height),
            size1=(features1.width, features1.height),
            refined1=refined1,
            mutual=method.match_mutual(features0, features1),
        )
        store.put(index, prediction)
        yield prediction


class FeatureCache:
    """A folder of features, shared by matchers that are compared on the same features.

    Files are named by a hash of the image's content and of everything that determines the features,
    so a changed setting or image never matches an old file.
    """

    def __init__(self, folder: Path, extractor: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(extractor, sort_keys=True).encode()).hexdigest()
        self._folder = folder / key[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_or_make(self, image: GreyImage, make: Callable[[], Features]) -> Features:
        """The stored features of an image, or those that ``make`` returns, then stored."""
        shape = f"{image.shape}".encode()
        name = hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()
        file = self._folder / f"{name[:32]}.npz"
        try:
            a = load_arrays(file)
            return Features(
                keypoints=a["keypoints"],
                scores=a["scores"],
                width=image.shape[1],
                height=image.shape[0],
                detector=str(a["detector"]),
                descriptors=a["descriptors"],
            )
        except (SuperglueError, KeyError, ValueError, TypeError):
            pass
        features = make()
        temporary = file.with_suffix(".part")
        with temporary.open("wb") as opened:
            np.savez(
                opened,
                keypoints=features.keypoints,
                scores=features.scores,
                detector=features.detector,
                descriptors=np.asarray(features.descriptors),
            )
        temporary.replace(file)
        return features


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Human-readable differences of two nested mappings, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in sorted(old.keys() | new.keys()):
            out += differences(old.get(key), new.get(key), f"{prefix}{key}.")
        return out
    return [] if old == new else [f"{prefix.rstrip('.')}: {_short(old)} became {_short(new)}"]


def digest(parts: Sequence[str]) -> str:
    """SHA-256 over a list of strings, for fingerprints of data."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
