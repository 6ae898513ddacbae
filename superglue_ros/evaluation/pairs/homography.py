"""Homography estimation (section 5.1, tables 1 and 5): synthetic pairs, and the HPatches layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.bootstrap import interval
from superglue_ros.evaluation.pairs.images import list_images, read_grey
from superglue_ros.evaluation.pairs.predictions import Missing, PairCase, Prediction, digest
from superglue_ros.geometry.dlt import dlt_homography
from superglue_ros.geometry.estimators import OpenCvRansac, RansacOptions
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
    """Evaluation protocol; the defaults are the paper's (appendix E)."""

    correct_px: float = 3.0
    ransac_px: float = 3.0
    ransac_iterations: int = 3000
    confidence_threshold: float = 0.0

    @property
    def ransac(self) -> RansacOptions:
        """For the robust estimator; OpenCV's own confidence."""
        return RansacOptions(
            threshold_px=self.ransac_px, confidence=0.995, max_iterations=self.ransac_iterations
        )

    def mapping(self) -> dict[str, Any]:
        """For result files."""
        return {"estimator": "cv2.findHomography RANSAC, and DLT", **asdict(self)}


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
    """Image 1 against image ``other`` of one HPatches sequence."""

    folder: Path
    other: int
    group: str

    @property
    def keys(self) -> tuple[str, str]:
        """Sequence and image."""
        return f"{self.folder.name}/1", f"{self.folder.name}/{self.other}"

    def image(self, which: int) -> GreyImage:
        """Image 1 or image ``other``."""
        return read_grey(_hpatches_image(self.folder, 1 if which == 0 else self.other))

    def homography(self) -> NDArray[np.floating]:
        """``H_1_k`` of the data set."""
        file = self.folder / f"H_1_{self.other}"
        try:
            matrix = np.loadtxt(file, dtype=np.float64)
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a 3x3 matrix: {error}") from error
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise DataError(f"{file} must hold 3x3 finite numbers, it holds {matrix.shape}")
        return matrix

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


def hpatches_cases(root: Path) -> list[HPatchesCase]:
    """All pairs 1-2 to 1-6 below an HPatches folder: ``v_*`` viewpoint, ``i_*`` illumination."""
    if not root.is_dir():
        raise DataError(f"HPatches folder {root} does not exist")
    groups = {"v_": "viewpoint", "i_": "illumination"}
    cases = [
        HPatchesCase(folder, other, groups[folder.name[:2]])
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name[:2] in groups
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
    dlt = dlt_homography(points0, points1)
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


def _hpatches_image(folder: Path, number: int) -> Path:
    for ending in (".ppm", ".png", ".jpg"):
        if (folder / f"{number}{ending}").is_file():
            return folder / f"{number}{ending}"
    return folder / f"{number}.ppm"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
