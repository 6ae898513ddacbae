"""MegaDepth (Li and Snavely, CVPR 2018) by the scene files of D2-Net's preprocessing.

A scene is one ``scene_info/NNNN.npz`` with image and depth paths (``.h5``), intrinsics and poses
(``T_camera_world``), and ``overlap_matrix``, the part of an image's reconstructed points that
another image sees. Paths are relative to ``root``, by default the folder above ``scene_info``.
Photographs are unordered in time: stamps are consecutive seconds.

:func:`write_scene` and :func:`write_depth` write what the layout reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.arrays import load_arrays
from superglue_ros.data.sequences.base import FolderSequence, Row
from superglue_ros.data.trajectories import Trajectory
from superglue_ros.errors import ConfigError, DataError

_COLUMNS = ("image_paths", "depth_paths", "intrinsics", "poses")
_SCORES = "overlap_matrix"


class MegaDepthLayout:
    """See :class:`~superglue_ros.data.sequences.base.Layout`."""

    def recognises(self, path: Path) -> bool:
        """By a file that ends in ``.npz``."""
        return path.is_file() and path.suffix == ".npz"

    def open(self, path: Path, depth_unit_m: float | None, root: Path | None) -> FolderSequence:
        """See :class:`~superglue_ros.data.sequences.base.Layout`."""
        start = root or path.parent.parent
        arrays = load_arrays(path, (*_COLUMNS, _SCORES), objects=True)
        missing = [name for name in _COLUMNS if name not in arrays]
        if missing:
            raise DataError(f"{path} is no MegaDepth scene file: it has no {', '.join(missing)}")
        rows: list[Row] = []
        poses = []
        kept = []
        for index, (image, depth, matrix, T_camera_world) in enumerate(
            zip(*(arrays[name] for name in _COLUMNS), strict=True)
        ):
            if image is None or depth is None:
                continue
            kept.append(index)
            stamp = len(rows) * 1_000_000_000
            intrinsics = np.asarray(matrix, np.float64)
            rows.append(
                Row(
                    stamp_ns=stamp,
                    image=start / str(image),
                    depth=start / str(depth),
                    camera=intrinsics,
                )
            )
            poses.append(np.linalg.inv(np.asarray(T_camera_world, np.float64)))
        if not rows:
            raise DataError(f"{path} has no image with depth")
        stamps = np.array([row.stamp_ns for row in rows], np.int64)
        return FolderSequence(
            path.stem,
            rows,
            Trajectory(stamps, np.array(poses)),
            depth_unit_m or 1.0,
            outdoor=True,
            covisibility=_covisibility(arrays, len(arrays["poses"]), kept, path),
        )


def _covisibility(
    arrays: Mapping[str, NDArray[Any]], count: int, kept: list[int], path: Path
) -> NDArray[np.float32] | None:
    """The scores of the images that are used; pairs that D2-Net left out (-1) see nothing."""
    if _SCORES not in arrays:
        return None
    try:
        scores = np.asarray(arrays[_SCORES], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {_SCORES} must hold numbers: {error}") from error
    if scores.shape != (count, count) or not np.isfinite(scores).all():
        raise DataError(
            f"{path}: {_SCORES} must hold a finite number for every pair of the {count} images, "
            f"not an array of {scores.shape}"
        )
    return scores[np.ix_(kept, kept)].clip(0, 1)


def write_scene(
    path: Path,
    images: Sequence[str],
    depths: Sequence[str],
    cameras: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    covisibility: NDArray[np.float32],
) -> None:
    """Write a scene file of N images, with their paths below the folder above that of ``path``.

    ``depths``: paths of their depth; ``cameras``: intrinsics (3, 3) and ``T_camera_world`` (4, 4)
    of each; ``covisibility`` (N, N), see :class:`FolderSequence`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    matrices, poses = zip(*cameras, strict=True)
    np.savez_compressed(
        path,
        image_paths=np.array(images),
        depth_paths=np.array(depths),
        intrinsics=np.stack(matrices),
        poses=np.stack(poses),
        overlap_matrix=covisibility,
    )


def write_depth(path: Path, depth: NDArray[np.float32]) -> None:
    """Write depth (H, W), 0 = unknown, as HDF5; raises :class:`ConfigError` without h5py."""
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("depth maps need h5py: pip install h5py") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("depth", data=depth, compression="gzip", compression_opts=1)
