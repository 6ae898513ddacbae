"""Homography estimation (section 5.1, tables 1 and 5): synthetic pairs, and the HPatches layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.images import list_images, read_grey
from superglue_ros.evaluation.pairs.predictions import Missing, PairCase, Prediction, digest
from superglue_ros.evaluation.pairs.repeated_poses import PoseEstimatorConfig
from superglue_ros.geometry.dlt import dlt_homography
from superglue_ros.geometry.estimators import OpenCvRansac, RansacOptions, make_estimator
from superglue_ros.synthetic.homographies import HomographyPair, HomographyRecipe, sample_pair
from superglue_ros.synthetic.photometric import PhotometricRecipe, distort

GreyImage = NDArray[np.uint8]

AUC_THRESHOLDS_PX = (1.0, 3.0, 5.0, 10.0)
PRECISION_THRESHOLDS_PX = tuple(range(1, 11))


class HomographyCase(PairCase, Protocol):
    """A pair with its homography; ``group`` is the part of the data set it belongs to."""

    group: str

    def homography(self) -> NDArray[np.floating]:
        """Pixels of image 0 to pixels of image 1, (3, 3)."""
        ...


@dataclass(frozen=True)
class HomographyProtocol:
    """Evaluation protocol; the defaults are the paper's (appendix E).

    ``estimators`` stand beside the paper's RANSAC; with ``weighted_dlt`` a match counts in the DLT
    by its confidence.
    """

    correct_px: float = 3.0
    ransac_px: float = 3.0
    ransac_iterations: int = 3000
    confidence_threshold: float = 0.0
    estimators: tuple[PoseEstimatorConfig, ...] = ()
    weighted_dlt: bool = False

    @property
    def ransac(self) -> RansacOptions:
        """For the robust estimator; OpenCV's own confidence."""
        return RansacOptions(
            threshold_px=self.ransac_px, confidence=0.995, max_iterations=self.ransac_iterations
        )

    def mapping(self) -> dict[str, Any]:
        """For result files."""
        values = {"estimator": "cv2.findHomography RANSAC, and DLT", **asdict(self)}
        values["estimators"] = [one.mapping() for one in self.estimators]
        for name in ("estimators", "weighted_dlt"):
            if not values[name]:
                del values[name]
        return values


@dataclass
class SyntheticCase:
    """Pair ``index`` of a seeded set: it depends only on seed and index."""

    path: Path
    name: str
    index: int
    seed: int
    recipe: HomographyRecipe
    photometric: PhotometricRecipe
    group: str = "synthetic"
    _made: HomographyPair | None = field(default=None, repr=False)

    @property
    def keys(self) -> tuple[str, str]:
        """Unique names of the two views."""
        return f"{self.name}#{self.index}.0", f"{self.name}#{self.index}.1"

    def image(self, which: int) -> GreyImage:
        """View 0 or 1."""
        pair = self._pair()
        return pair.image0 if which == 0 else pair.image1

    def homography(self) -> NDArray[np.floating]:
        """Ground truth."""
        return self._pair().homography

    def release(self) -> None:
        """Release the images; they are made again on demand."""
        self._made = None

    def _pair(self) -> HomographyPair:
        if self._made is None:
            rng = np.random.default_rng([self.seed, self.index])
            pair = sample_pair(read_grey(self.path), rng, self.recipe)
            image0 = distort(pair.image0, rng, self.photometric)
            image1 = distort(pair.image1, rng, self.photometric)
            self._made = HomographyPair(image0, image1, pair.homography)
        return self._made


@dataclass
class HPatchesCase:
    """Image 1 against image ``other`` of one HPatches sequence.

    ``short_side``: images are resized so that their shorter side has as many pixels; 0: not.
    """

    folder: Path
    other: int
    group: str
    short_side: int = 0
    _sizes: dict[int, tuple[tuple[int, int], tuple[int, int]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def keys(self) -> tuple[str, str]:
        """Sequence and image."""
        return f"{self.folder.name}/1", f"{self.folder.name}/{self.other}"

    def image(self, which: int) -> GreyImage:
        """Image 1 or image ``other``."""
        image = read_grey(_hpatches_image(self.folder, 1 if which == 0 else self.other))
        if not self.short_side:
            return image
        height, width = image.shape
        scale = self.short_side / min(height, width)
        size = (round(width * scale), round(height * scale))
        self._sizes[which] = ((width, height), size)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)

    def homography(self) -> NDArray[np.floating]:
        """``H_1_k`` of the data set, between the images as :meth:`image` gives them."""
        file = self.folder / f"H_1_{self.other}"
        try:
            matrix = np.loadtxt(file, dtype=np.float64)
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a 3x3 matrix: {error}") from error
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise DataError(f"{file} must hold 3x3 finite numbers, it holds {matrix.shape}")
        if not self.short_side:
            return matrix
        first, second = (_resizing(*self._size(which)) for which in (0, 1))
        return np.asarray(second @ matrix @ np.linalg.inv(first))

    def _size(self, which: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height of an image as stored, and resized."""
        if which not in self._sizes:
            self.image(which)
        return self._sizes[which]

    def release(self) -> None:
        """Nothing is kept."""


def synthetic_cases(
    images: Path,
    pairs: int,
    seed: int,
    recipe: HomographyRecipe,
    photometric: PhotometricRecipe,
    paths: Sequence[Path] | None = None,
) -> list[SyntheticCase]:
    """``pairs`` seeded pairs that cycle through the images of a folder, or ``paths`` in it."""
    found = list(paths) if paths is not None else list_images(images)
    return [
        SyntheticCase(
            path=path,
            name=path.relative_to(images).as_posix(),
            index=k,
            seed=seed,
            recipe=recipe,
            photometric=photometric,
        )
        for k, path in ((k, found[k % len(found)]) for k in range(pairs))
    ]


def hpatches_cases(
    root: Path, short_side: int = 0, left_out: Sequence[str] = ()
) -> list[HPatchesCase]:
    """All pairs 1-2 to 1-6 below an HPatches folder: ``v_*`` viewpoint, ``i_*`` illumination.

    ``short_side`` as of :class:`HPatchesCase`; ``left_out`` sequences are not evaluated.
    """
    if not root.is_dir():
        raise DataError(f"HPatches folder {root} does not exist")
    groups = {"v_": "viewpoint", "i_": "illumination"}
    cases = [
        HPatchesCase(
            folder=folder, other=other, group=groups[folder.name[:2]], short_side=short_side
        )
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name[:2] in groups and folder.name not in left_out
        for other in range(2, 7)
        if (folder / f"H_1_{other}").is_file()
    ]
    if not cases:
        raise DataError(
            f"{root} holds no HPatches sequences: folders v_* and i_* with 1.ppm ... 6.ppm and "
            f"H_1_2 ... H_1_6 are needed"
        )
    return cases


def data_fingerprint(cases: Sequence[SyntheticCase] | Sequence[HPatchesCase]) -> dict[str, Any]:
    """What determines the pairs: image names and sizes, seed and recipes."""
    parts = []
    first = cases[0]
    for case in cases:
        if isinstance(case, SyntheticCase):
            parts.append(f"{case.keys[0]} {_bytes(case.path)}")
        else:
            parts.append(f"{case.keys[1]} {_bytes(case.folder / f'H_1_{case.other}')}")
    out: dict[str, Any] = {"pairs": len(cases), "digest": digest(parts)}
    if isinstance(first, SyntheticCase):
        out |= {"seed": first.seed, "recipe": asdict(first.recipe)}
        out["photometric"] = asdict(first.photometric)
    return out


def judge(
    case: HomographyCase, prediction: Prediction, protocol: HomographyProtocol
) -> dict[str, Any]:
    """One record: match quality and corner errors of one pair."""
    truth = case.homography()
    kept = prediction.above(protocol.confidence_threshold)
    points0, points1 = kept.points0, kept.points1
    distances = reprojection_errors(kept, truth)
    correct = distances < protocol.correct_px
    possible = metrics.ground_truth_matches(
        kept.keypoints0, kept.keypoints1, truth, protocol.correct_px
    )
    quality = metrics.match_quality(
        correct,
        metrics.count_recovered(kept.matches, possible),
        len(possible),
        len(kept.keypoints0),
        distances[np.isfinite(distances)],
    )
    ransac = OpenCvRansac().homography(points0, points1, protocol.ransac)
    dlt = dlt_homography(points0, points1, kept.confidence if protocol.weighted_dlt else None)
    estimates = [
        {
            "estimator": one.key,
            "corner_error_px": metrics.corner_error(
                make_estimator(one.name).homography(points0, points1, one.options),
                truth,
                *kept.size0,
            ),
        }
        for one in protocol.estimators
    ]
    return {
        "name0": case.keys[0],
        "name1": case.keys[1],
        "group": case.group,
        "keypoints0": len(kept.keypoints0),
        "keypoints1": len(kept.keypoints1),
        "possible": len(possible),
        "matches": len(kept.matches),
        "correct": int(correct.sum()),
        **asdict(quality),
        "calibration_error": metrics.reliability(kept.confidence, correct).expected_error,
        "ransac_error_px": metrics.corner_error(ransac, truth, *kept.size0),
        "dlt_error_px": metrics.corner_error(dlt, truth, *kept.size0),
        **{
            f"precision_{t}px": float(np.mean(distances < t)) if len(distances) else 0.0
            for t in PRECISION_THRESHOLDS_PX
        },
        **({"estimates": estimates} if estimates else {}),
    }


def reprojection_errors(prediction: Prediction, truth: NDArray) -> NDArray[np.float64]:
    """Distance [px] in image 1 of every match (K,) from its true position by the homography."""
    offsets = metrics.project(truth, prediction.points0) - prediction.points1
    return np.nan_to_num(np.linalg.norm(offsets, axis=1), nan=np.inf)


def summarise(
    records: Sequence[Mapping[str, Any]], missing: Iterable[Missing] = (), seed: int = 0
) -> dict[str, Any]:
    """Table 1's numbers in percent, with 95% bootstrap intervals, in all and per group."""
    out = _summary(records, seed)
    out["missing_pairs"] = len(list(missing))
    groups = sorted({str(r["group"]) for r in records})
    if len(groups) > 1:
        out["groups"] = {g: _summary([r for r in records if r["group"] == g], seed) for g in groups}
    return out


def _summary(records: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(r[name]) for r in records], np.float64)

    out: dict[str, Any] = {"pairs": len(records)}
    for estimator in ("ransac", "dlt"):
        errors = column(f"{estimator}_error_px")
        out[f"{estimator}_auc"] = {
            f"{t:g}": 100 * metrics.auc(errors, t) for t in AUC_THRESHOLDS_PX
        }
        out[f"{estimator}_auc_interval_10"] = [
            100 * v for v in interval(errors, lambda e: metrics.auc(e, 10.0), seed)
        ]
        out[f"{estimator}_failures"] = int(np.isinf(errors).sum())
    if "estimates" in records[0]:
        names = [row["estimator"] for row in records[0]["estimates"]]
        out["estimators"] = {}
        for k, name in enumerate(names):
            errors = np.array([r["estimates"][k]["corner_error_px"] for r in records], np.float64)
            areas = {f"{t:g}": 100 * metrics.auc(errors, t) for t in AUC_THRESHOLDS_PX}
            out["estimators"][name] = {"auc": areas, "failures": int(np.isinf(errors).sum())}
    for name in ("precision", "recall", "f1", "matching_score", "outlier_ratio"):
        out[name] = 100 * metrics.mean_defined(column(name))
    for name in ("precision", "recall"):
        low, high = interval(column(name), metrics.mean_defined, seed)
        out[f"{name}_interval"] = [100 * low, 100 * high]
    out["precision_over_px"] = {
        str(t): 100 * metrics.mean_defined(column(f"precision_{t}px"))
        for t in PRECISION_THRESHOLDS_PX
    }
    out["mean_distance_px"] = metrics.mean_defined(column("mean_distance_px"))
    for name in ("keypoints0", "matches", "correct", "possible"):
        out[f"mean_{name}"] = metrics.mean_defined(column(name))
    return out


def _resizing(before: tuple[int, int], after: tuple[int, int]) -> NDArray[np.float64]:
    """Pixels of an image of ``before`` (width, height) to those of it resized to ``after``."""
    x, y = (b / a for a, b in zip(before, after, strict=True))
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])


def _hpatches_image(folder: Path, number: int) -> Path:
    for ending in (".ppm", ".png", ".jpg"):
        if (folder / f"{number}{ending}").is_file():
            return folder / f"{number}{ending}"
    return folder / f"{number}.ppm"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
