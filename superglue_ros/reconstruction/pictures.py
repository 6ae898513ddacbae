"""What is reconstructed: images of a folder, a sequence or a bag, with what is known of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data.bag_sequences import BagSequence
from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import FolderSequence, open_sequence
from superglue_ros.errors import DataError
from superglue_ros.evaluation.pairs.images import list_images, read_grey
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.camera import Camera
from superglue_ros.registry import SEQUENCES

Pose = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images below ``root`` by ``names``, each with its camera, pose and stamp, where known.

    ``title``: name of the folder, sequence or bag.
    ``poses`` are ``T_world_camera`` (4, 4); ``ordered``: they follow each other in time.
    """

    title: str
    root: Path
    names: tuple[str, ...]
    cameras: tuple[Camera | None, ...]
    poses: tuple[Pose | None, ...]
    stamps_ns: NDArray[np.int64]
    ordered: bool

    def __len__(self) -> int:
        return len(self.names)

    def grey(self, place: int) -> NDArray[np.uint8]:
        """Image (H, W) uint8; raises :class:`DataError` naming its file."""
        return read_grey(self.root / self.names[place])

    def select(self, places: Sequence[int]) -> Pictures:
        """The pictures at ``places``, in that order."""
        return replace(
            self,
            names=tuple(self.names[i] for i in places),
            cameras=tuple(self.cameras[i] for i in places),
            poses=tuple(self.poses[i] for i in places),
            stamps_ns=self.stamps_ns[list(places)],
        )

    def calibrated(self, camera: Camera | None) -> Pictures:
        """The same, all of one camera; None = not known."""
        return replace(self, cameras=(camera,) * len(self))

    @property
    def stamp_of(self) -> dict[str, int]:
        """Stamps [ns] of the pictures by name."""
        return dict(zip(self.names, self.stamps_ns.tolist(), strict=True))

    @property
    def positions(self) -> dict[str, NDArray[np.float64]]:
        """Camera centres (3,) of the pictures whose pose is known."""
        return {n: p[:3, 3] for n, p in zip(self.names, self.poses, strict=True) if p is not None}


def open_pictures(
    path: Path, output: Path, image_topic: str = "", root: Path | None = None
) -> Pictures:
    """The pictures of a folder, a sequence of a known layout, or a bag.

    ``root``: what the names in a layout's list are relative to. Those of a bag are written to
    ``output / "images"``. Raises :class:`DataError`.
    """
    if _is_bag(path):
        return _of_bag(BagSequence(path, image=image_topic), output / "images")
    if any(SEQUENCES.make(name).recognises(path) for name in SEQUENCES):
        return _of_sequence(open_sequence(path, root=root))
    names = tuple(p.relative_to(path).as_posix() for p in list_images(path))
    none = (None,) * len(names)
    stamps = np.arange(len(names), dtype=np.int64) * 1_000_000_000
    return Pictures(
        title=path.resolve().name,
        root=path,
        names=names,
        cameras=none,
        poses=none,
        stamps_ns=stamps,
        ordered=False,
    )


def without_copies(pictures: Pictures) -> tuple[Pictures, list[tuple[str, str]]]:
    """The pictures without those whose pixels are those of one before, and (copy, original)."""
    first: dict[bytes, int] = {}
    kept, copies = [], []
    for place in track(range(len(pictures)), len(pictures), "reading"):
        image = pictures.grey(place)
        key = hashlib.sha256(image.tobytes() + str(image.shape).encode()).digest()
        if first.setdefault(key, place) == place:
            kept.append(place)
        else:
            copies.append((pictures.names[place], pictures.names[first[key]]))
    return pictures.select(kept), copies


def _is_bag(path: Path) -> bool:
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def _of_sequence(sequence: FolderSequence) -> Pictures:
    paths = sequence.image_paths
    root = Path(os.path.commonpath([path.parent for path in paths]))
    cameras = [_camera_of(sequence, place) for place in range(len(sequence))]
    return Pictures(
        title=sequence.name,
        root=root,
        names=tuple(path.relative_to(root).as_posix() for path in paths),
        cameras=tuple(cameras),
        poses=tuple(sequence.pose(place) for place in range(len(sequence))),
        stamps_ns=sequence.stamps_ns,
        ordered=not sequence.outdoor,
    )


def _camera_of(sequence: FolderSequence, place: int) -> Camera | None:
    if sequence.camera is not None:
        return sequence.camera
    known = sequence.own_camera(place)
    if known is None or isinstance(known, Camera):
        return known
    height, width = read_grey(sequence.image_paths[place]).shape
    return Camera(width=width, height=height, matrix=known, distortion=np.zeros(0))


def _of_bag(bag: BagSequence, folder: Path) -> Pictures:
    folder.mkdir(parents=True, exist_ok=True)
    names, poses, stamps = [], [], []
    for item in track(bag, len(bag), "unpacking"):
        name = f"{item.stamp_ns:019d}.png"
        if not (folder / name).is_file():
            cv2.imwrite(str(folder / name), item.image)
        elif to_grey(item.image).shape != read_grey(folder / name).shape:
            raise DataError(f"{folder / name} is of another bag: give another --output")
        names.append(name)
        poses.append(item.T_world_camera)
        stamps.append(item.stamp_ns)
    if not names:
        raise DataError(f"bag {bag.path} has no image")
    return Pictures(
        title=bag.name,
        root=folder,
        names=tuple(names),
        cameras=(bag.camera,) * len(names),
        poses=tuple(poses),
        stamps_ns=np.array(stamps, np.int64),
        ordered=True,
    )
