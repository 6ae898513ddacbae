"""Keyframes with their features on disk: versioned, written atomically, checked on load.

One safetensors file. The features of all keyframes lie one after the other in shared arrays; the
metadata holds the format version, the SHA-256 of the arrays, and a JSON list with the other fields
of every keyframe, among them its pose in the map where it is known. Encodings and global
descriptors are recomputed on load, not stored, so that a map does not depend on the matcher's
weights. Landmark ids are stored because other programs refer to them; frame and landmark counters
are stored so that numbering continues after loading.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from superglue_ros.errors import DataError, SuperglueError
from superglue_ros.files import open_regular, replace_atomically
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.uncertain_pose import UncertainPose
from superglue_ros.mapping.keyframes import Keyframe, KeyframeStore
from superglue_ros.types import MAX_ID, Features, FloatArray, FrameId

FORMAT = "superglue_ros map"
VERSION = "3"
READABLE = ("2", VERSION)
"""Version 2 is of maps without poses."""
FILE_OF_A_FOLDER = "map.safetensors"
"""The map in a folder that ``superglue-ros reconstruct`` wrote."""
MAX_BYTES = 512 << 20
"""Larger files are no maps: 1,500 keyframes of 300 kB are less."""

MAX_POSITION_M = 1e7
"""A position farther out, in metres, is no measurement."""
_ROUNDING = 1e-6

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class StoredKeyframe:
    """A keyframe without encoding and global descriptor, and the part of the map it belongs to."""

    keyframe: Keyframe
    part: int


@dataclass(frozen=True, eq=False)
class StoredMap:
    """The keyframes of a map, oldest first.

    No frame had a number above ``last_frame`` when it was saved, and no landmark an id of
    ``next_landmark`` or above.
    """

    keyframes: tuple[StoredKeyframe, ...]
    last_frame: int
    next_landmark: int


def save(
    path: str | Path, keyframes: KeyframeStore, last_frame: int = 0, next_landmark: int = 0
) -> int:
    """Write all keyframes atomically; returns their number.

    ``last_frame``, ``next_landmark``: see :class:`StoredMap`.

    An older map is replaced, any other file is not. Raises :class:`DataError` if there is nothing
    to write, or it cannot be written.
    """
    path = Path(path)
    if not len(keyframes):
        raise DataError("the map has no keyframes yet: there is nothing to save")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: the folder {path.parent} does not exist")
    _refuse_to_replace_others(path)
    arrays = _arrays(list(keyframes))
    entries = [_entry(keyframe, keyframes.part(keyframe.id)) for keyframe in keyframes]
    counters = {"last_frame": last_frame, "next_landmark": next_landmark}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": _digest(arrays, {"entries": entries, "counters": counters}),
        "keyframes": json.dumps(entries),
        "counters": json.dumps(counters),
    }
    contiguous = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    size = sum(array.nbytes for array in contiguous.values())
    if size > MAX_BYTES:
        raise DataError(
            f"the map has {size} bytes, more than the {MAX_BYTES} that are read back: lower "
            f"keyframes.max_keyframes or front_end.max_keypoints"
        )
    try:
        replace_atomically(path, lambda name: save_file(contiguous, name, metadata))
    except (OSError, SafetensorError) as error:  # a full disk gives the one or the other
        raise DataError(f"cannot write {path}: {_reason(error)}") from error
    return len(keyframes)


def load(path: str | Path) -> StoredMap:
    """Read a map.

    Raises :class:`DataError` naming what is wrong: no such file, not a map, another version,
    truncated or damaged, inconsistent.
    """
    path = Path(path)
    try:
        with open_regular(path, MAX_BYTES) as checked, _open(checked) as file:
            metadata = file.metadata() or {}
            _check_version(path, metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise DataError(f"cannot read the map {path}: {_reason(error)}") from error
    except SafetensorError as error:
        raise DataError(f"{path} is no map, or is truncated: {error}. Save it again") from error
    try:
        entries, counters = (json.loads(metadata[name]) for name in ("keyframes", "counters"))
        content = {"entries": entries, "counters": counters}
        if _digest(arrays, content) != metadata["sha256"]:
            raise DataError(f"{path} is damaged: its checksum does not fit. Save it again")
        _check_types(arrays)
        keyframes = tuple(_keyframes(entries, arrays))
        if len({entry.keyframe.id for entry in keyframes}) < len(keyframes):
            raise ValueError("two keyframes have one id")
        highest = max((entry.keyframe.id.id for entry in keyframes), default=0)
        last_frame = max(_number(counters["last_frame"]), highest)
        return StoredMap(keyframes, last_frame, _number(counters["next_landmark"]))
    except DataError:
        raise
    except (SuperglueError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is inconsistent: {error!r}. Save it again") from error


def _open(file: BinaryIO) -> Any:
    """The open file as safetensors: by its descriptor, so that no other file takes its place."""
    return safe_open(f"/proc/self/fd/{file.fileno()}", framework="numpy")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _refuse_to_replace_others(path: Path) -> None:
    """Raise :class:`DataError` where something other than a map is in the way."""
    if not os.path.lexists(path):
        return
    try:
        if path.is_symlink():
            raise DataError(f"cannot write {path}: it is a link; give another name")
        with open_regular(path, MAX_BYTES) as checked, _open(checked) as file:
            is_map = (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        is_map = False
    if not is_map:
        raise DataError(f"cannot write {path}: a file that is no map has that name; give another")


def _check_version(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is a safetensors file but no map: give a file of ~/save_map")
    if metadata.get("version") not in READABLE:
        raise DataError(
            f"{path} is a map of version {metadata.get('version')}, this program reads "
            f"{' and '.join(READABLE)}: make the map again"
        )


def _arrays(keyframes: Sequence[Keyframe]) -> Arrays:
    """The arrays of all keyframes, one after the other; unknown depth is 0."""
    features = [keyframe.features for keyframe in keyframes]
    arrays = {
        "counts": np.array([len(f) for f in features], np.int64),
        "keypoints": np.concatenate([f.keypoints for f in features]),
        "scores": np.concatenate([f.scores for f in features]),
        "sigma_px": np.concatenate([f.sigma_px for f in features]),
        "track_ids": np.concatenate([f.track_ids for f in features]),
        "depth": _joined(keyframes, [k.depth for k in keyframes]),
        "depth_sigma": _joined(keyframes, [k.depth_sigma for k in keyframes]),
    }
    described = [f.descriptors for f in features if f.descriptors is not None]
    if described:
        arrays["descriptors"] = np.concatenate(described)
    return arrays


def _joined(keyframes: Sequence[Keyframe], values: Sequence[FloatArray | None]) -> NDArray[Any]:
    """One value for each keypoint of all keyframes, 0 for those of keyframes that have none."""
    filled = [
        np.zeros(len(keyframe.features), np.float32) if own is None else own
        for keyframe, own in zip(keyframes, values, strict=True)
    ]
    return np.concatenate(filled).astype(np.float32)


def _entry(keyframe: Keyframe, part: int) -> dict[str, Any]:
    camera = keyframe.camera
    return {
        "id": asdict(keyframe.id),
        "part": part,
        "width": keyframe.features.width,
        "height": keyframe.features.height,
        "detector": keyframe.features.detector,
        "rectified": keyframe.rectified,
        "has_depth": keyframe.depth is not None,
        "has_depth_sigma": keyframe.depth_sigma is not None,
        "camera": None
        if camera is None
        else {
            "width": camera.width,
            "height": camera.height,
            "matrix": camera.matrix.tolist(),
            "distortion": camera.distortion.tolist(),
            "model": camera.model,
        },
        "pose": None
        if keyframe.pose is None
        else {
            "rotation": keyframe.pose.rotation.tolist(),
            "translation": keyframe.pose.translation.tolist(),
            "covariance": keyframe.pose.covariance.tolist(),
        },
    }


def _check_types(arrays: Arrays) -> None:
    """Raise ValueError where an array is missing, unknown, or not as :func:`save` writes it."""
    known: dict[str, tuple[type, int]] = {
        **dict.fromkeys(("scores", "sigma_px", "depth", "depth_sigma"), (np.float32, 1)),
        **dict.fromkeys(("counts", "track_ids"), (np.int64, 1)),
        **dict.fromkeys(("keypoints", "descriptors"), (np.float32, 2)),
    }
    for name, array in arrays.items():
        dtype, dimensions = known.get(name, (None, 0))
        if array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(f"{name} is an array of {array.dtype} of shape {array.shape}")


def _keyframes(entries: list[dict[str, Any]], arrays: Arrays) -> list[StoredKeyframe]:
    counts = arrays.pop("counts").tolist()
    total = sum(counts)
    unequal = {name: len(array) for name, array in arrays.items() if len(array) != total}
    if len(entries) != len(counts) or unequal or min(counts, default=0) < 0:
        raise ValueError(f"{len(entries)} keyframes, {counts} keypoints, arrays of {unequal}")
    ends = list(accumulate(counts))
    return [
        StoredKeyframe(
            _keyframe(entry, {name: array[end - count : end] for name, array in arrays.items()}),
            _number(entry["part"]),
        )
        for entry, count, end in zip(entries, counts, ends, strict=True)
    ]


def _number(value: Any) -> int:
    """A whole number that counting may go on from."""
    if type(value) is not int or not 0 <= value < MAX_ID:
        raise ValueError(f"{value!r} is no number from 0 to {MAX_ID - 1}")
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _pose(entry: dict[str, Any] | None) -> UncertainPose | None:
    """A pose that later ones may be composed with. Raises ValueError."""
    if entry is None:
        return None
    rotation, translation, covariance = (
        np.array(entry[name], np.float64) for name in ("rotation", "translation", "covariance")
    )
    shapes = rotation.shape, translation.shape, covariance.shape
    if shapes != ((3, 3), (3,), (6, 6)):
        raise ValueError(f"a pose has arrays of shapes {shapes}")
    if not (np.abs(translation) <= MAX_POSITION_M).all():
        raise ValueError(f"a position is not within {MAX_POSITION_M:g} m: {translation.tolist()}")
    if not (
        np.abs(rotation).max() <= 2  # so that nothing overflows below
        and np.abs(rotation @ rotation.T - np.eye(3)).max() <= _ROUNDING
        and np.linalg.det(rotation) > 0
    ):
        raise ValueError(f"a rotation is none: {rotation.tolist()}")
    scale = np.abs(covariance).max()
    if (
        not scale <= MAX_POSITION_M**2
        or np.abs(covariance - covariance.T).max() > _ROUNDING * scale
        or np.linalg.eigvalsh(covariance)[0] < -_ROUNDING * scale
    ):
        raise ValueError(f"the covariance of a pose is none: {covariance.tolist()}")
    return UncertainPose(rotation, translation, covariance)


def _keyframe(entry: dict[str, Any], own: Arrays) -> Keyframe:
    camera = entry["camera"]
    if camera is not None:
        matrix, distortion = np.array(camera["matrix"]), np.array(camera["distortion"], float)
        camera = Camera(
            width=_number(camera["width"]),
            height=_number(camera["height"]),
            matrix=matrix,
            distortion=distortion,
            model=camera["model"],
        )
    features = Features(
        keypoints=own["keypoints"],
        scores=own["scores"],
        width=entry["width"],
        height=entry["height"],
        detector=entry["detector"],
        descriptors=own.get("descriptors"),
        sigma_px=own["sigma_px"],
        track_ids=own["track_ids"],
    )
    return Keyframe(
        id=FrameId(**entry["id"]),
        features=features,
        prepared=None,
        camera=camera,
        depth=own["depth"] if _truth(entry["has_depth"]) else None,
        rectified=_truth(entry["rectified"]),
        depth_sigma=own["depth_sigma"] if _truth(entry["has_depth_sigma"]) else None,
        pose=_pose(entry.get("pose")),
    )


def _digest(arrays: Arrays, content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
