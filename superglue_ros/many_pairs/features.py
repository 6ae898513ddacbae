"""Features of many images on disk, ``IMAGES`` a file, each image read by itself.

The entries of a file are named ``3.keypoints``: the place of the image in the file, and the array.
Where matches are refined by the images around them, the image at the network's size is there too.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from superglue_ros.data.image import Resized
from superglue_ros.errors import DataError, SuperglueError
from superglue_ros.files import replace_atomically
from superglue_ros.geometry.camera import Camera
from superglue_ros.many_pairs.work import IMAGES, feature_file
from superglue_ros.mapping.keyframes import Keyframe
from superglue_ros.types import Features, FrameId

FORMAT = "superglue_ros features 1"
KEPT = 4 * IMAGES
"""Images that a process holds, ready to be matched: the two sides of a tile, and of the next."""

Outcome = Keyframe | SuperglueError


def write_features(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write images, or the errors that refused them, atomically."""
    arrays: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, SuperglueError):
            entries.append({"error": str(outcome)})
            continue
        features, resized = outcome.features, outcome.resized
        own = {
            "keypoints": features.keypoints,
            "scores": features.scores,
            "sigma_px": features.sigma_px,
            "descriptors": features.descriptors,
            "image": None if resized is None else resized.image,
        }
        arrays |= {
            f"{place}.{name}": np.ascontiguousarray(values)
            for name, values in own.items()
            if values is not None
        }
        entries.append(
            {
                "width": features.width,
                "height": features.height,
                "detector": features.detector,
                "scale": None if resized is None else [resized.scale_x, resized.scale_y],
            }
        )
    metadata = {"format": FORMAT, "entries": json.dumps(entries)}
    replace_atomically(path, lambda name: save_file(arrays, name, metadata))


class StoredFeatures:
    """The images of a folder of features by their numbers; the last ``KEPT`` are held.

    ``ready`` makes an image ready to be matched; ``camera`` is that of all images, or None.
    """

    def __init__(
        self, folder: Path, ready: Callable[[Keyframe], Keyframe], camera: Camera | None = None
    ) -> None:
        self._folder = folder
        self._ready = ready
        self._camera = camera
        self._held: OrderedDict[int, Outcome] = OrderedDict()

    def __getitem__(self, image: int) -> Outcome:
        """An image, or the error that refused it. Raises :class:`DataError` naming a bad file."""
        if image not in self._held:
            found = self._read(image)
            self._held[image] = self._ready(found) if isinstance(found, Keyframe) else found
            if len(self._held) > KEPT:
                self._held.popitem(last=False)
        self._held.move_to_end(image)
        return self._held[image]

    def _read(self, image: int) -> Outcome:
        path = feature_file(self._folder, image // IMAGES)
        place = image % IMAGES
        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')!r}")
                entry = json.loads(metadata["entries"])[place]
                if "error" in entry:
                    return DataError(entry["error"])
                prefix = f"{place}."
                own = {
                    name.removeprefix(prefix): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118
                    if name.startswith(prefix)
                }
                return self._keyframe(image, entry, own)
        except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} holds no features of image {place} ({error}): remove it and run again"
            ) from error

    def _keyframe(self, image: int, entry: dict[str, Any], own: dict[str, Any]) -> Keyframe:
        features = Features(
            keypoints=own["keypoints"],
            scores=own["scores"],
            width=entry["width"],
            height=entry["height"],
            detector=entry["detector"],
            descriptors=own.get("descriptors"),
            sigma_px=own["sigma_px"],
        )
        return Keyframe(
            id=FrameId(id=image, stamp_ns=image),
            features=features,
            prepared=None,
            camera=self._camera,
            rectified=self._camera is not None and not self._camera.distorted,
            resized=Resized(own["image"], *entry["scale"]) if entry["scale"] else None,
        )
