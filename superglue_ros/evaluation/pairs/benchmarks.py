"""Public benchmarks by name: their layouts on disk and their published protocol.

MegaDepth-1500, ScanNet-1500 and HPatches as glue-factory evaluates them (cvg/glue-factory,
``gluefactory/eval``): sizes, numbers of keypoints, estimators and the rule that every estimator
stands there with the best of six thresholds. The data is the user's copy; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from superglue_ros.data.arrays import load_arrays
from superglue_ros.data.sequences.base import open_sequence
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.pairs_file import PosePair, read_pairs
from superglue_ros.evaluation.pairs.repeated_poses import PoseEstimatorConfig

THRESHOLDS_PX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Of which an estimator's best counts."""
ESTIMATORS = ("opencv-ransac", "poselib")
HPATCHES_SHORT_SIDE = 480
HPATCHES_LEFT_OUT = (
    "i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding", "v_artisans",
    "v_astronautis", "v_talent",
)  # fmt: skip
"""Sequences of large images, which published tables leave out."""


@dataclass(frozen=True)
class Benchmark:
    """``settings`` of the front-end, ``auc`` the thresholds of the published areas, in ``unit``.

    ``homography``: homographies, else relative poses. ``epipolar``: squared distance of a right
    match.
    """

    title: str
    settings: Mapping[str, Any]
    auc: tuple[int, ...] = (5, 10, 20)
    unit: str = "degrees"
    homography: bool = False
    epipolar: float = 5e-4


BENCHMARKS = {
    "megadepth1500": Benchmark(
        title="MegaDepth-1500",
        settings={"max_keypoints": 2048, "threshold": 0.0, "nms_radius": 3, "max_size": 1600},
        epipolar=1e-4,
    ),
    "scannet1500": Benchmark(
        title="ScanNet-1500",
        settings={"max_keypoints": 2048, "threshold": 0.0, "nms_radius": 3, "max_size": 640},
    ),
    "hpatches": Benchmark(
        title="HPatches",
        settings={"max_keypoints": 1024, "threshold": 0.0, "nms_radius": 3, "max_size": 0},
        auc=(1, 3, 5),
        unit="px",
        homography=True,
    ),
}


def swept(
    names: tuple[str, ...], thresholds: tuple[float, ...], homography: bool, seed: int
) -> tuple[PoseEstimatorConfig, ...]:
    """Every estimator at every threshold, with the options of glue-factory.

    OpenCV's RANSAC: confidence 0.99999 and its own 1000 iterations for poses, 0.995 and 3000 for
    homographies; all others PoseLib's own confidence 0.9999 and 100,000 iterations.
    """
    opencv = (0.995, 3000) if homography else (0.99999, 1000)
    return tuple(
        PoseEstimatorConfig(
            name=name,
            threshold_px=threshold,
            confidence=opencv[0] if name == "opencv-ransac" else 0.9999,
            max_iterations=opencv[1] if name == "opencv-ransac" else 100_000,
            seed=seed,
            label=f"{name}@{threshold:g}",
        )
        for name in names
        for threshold in thresholds
    )


def best_thresholds(
    summary: Mapping[str, Any], auc: tuple[int, ...]
) -> dict[str, tuple[float, dict[str, float]]]:
    """By estimator: the threshold of the largest mean area, and its areas in per cent."""
    best: dict[str, tuple[float, dict[str, float]]] = {}
    for key, part in summary["estimators"].items():
        name, _, threshold = key.partition("@")
        areas = {str(t): float(part["auc"][str(t)]) for t in auc}
        had = best.get(name)
        if had is None or sum(areas.values()) > sum(had[1].values()):
            best[name] = (float(threshold), areas)
    return best


def benchmark_pairs(data: Path) -> tuple[list[PosePair], Path]:
    """The pairs of a copy of MegaDepth-1500 or ScanNet-1500, and the folder of their images.

    Layouts: glue-factory's (``pairs_calibrated.txt``), SuperGlue's (``*_pairs_with_gt.txt``), the
    images beside the file or in ``images/``; LoFTR's scene files (``scene_info/*.npz``, their
    images relative to the folder). Raises :class:`DataError` on anything else.
    """
    lists = [
        *(data / name for name in ("pairs_calibrated.txt",) if (data / name).is_file()),
        *sorted(data.glob("*_pairs_with_gt.txt")),
    ]
    if lists:
        pairs = read_pairs(lists[0])
        return pairs, _root_of(data, pairs[0].name0)
    scenes = sorted(data.glob("*scene_info/*.npz"))
    if not scenes:
        raise DataError(
            f"{data} is no copy of a benchmark: it needs pairs_calibrated.txt (glue-factory), "
            f"*_pairs_with_gt.txt (SuperGlue) or scene_info/*.npz (LoFTR)"
        )
    pairs = [pair for scene in scenes for pair in _scene_pairs(scene, data)]
    return pairs, data


def _root_of(data: Path, name: str) -> Path:
    for folder in (data / "images", data):
        if (folder / name).is_file():
            return folder
    raise DataError(f"{data} has no image {name}, neither beside the list nor in images/")


def _scene_pairs(scene: Path, data: Path) -> list[PosePair]:
    """The pairs that a scene file lists, of the images it names."""
    sequence = open_sequence(scene, layout="megadepth", root=data)
    listed = load_arrays(scene, ("pair_infos",), objects=True).get("pair_infos")
    if listed is None:
        raise DataError(f"{scene} lists no pairs: it has no pair_infos")
    # Indices count all images of the file; the sequence leaves out those without a file.
    names = load_arrays(scene, ("image_paths", "depth_paths"), objects=True)
    there = [
        index
        for index, both in enumerate(zip(names["image_paths"], names["depth_paths"], strict=True))
        if None not in both
    ]
    place = {index: k for k, index in enumerate(there)}
    pairs = []
    for entry in listed:
        try:
            i, j = (place[int(index)] for index in entry[0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{scene}: {entry!r:.60} is no pair of its images") from error
        T_world_0, T_world_1 = sequence.pose(i), sequence.pose(j)
        assert T_world_0 is not None
        assert T_world_1 is not None
        paths = [sequence.image_paths[k].relative_to(data).as_posix() for k in (i, j)]
        pairs.append(
            PosePair(
                name0=paths[0],
                name1=paths[1],
                rot0=0,
                rot1=0,
                intrinsics0=sequence.intrinsics(i),
                intrinsics1=sequence.intrinsics(j),
                transform=np.linalg.inv(T_world_1) @ T_world_0,
            )
        )
    return pairs
