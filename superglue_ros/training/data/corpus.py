"""A corpus of images for training: provenance, licence, near-duplicates, and a fixed test split.

A corpus is a folder with ``manifest.jsonl``, one line per image, and the images themselves, which
stay in their original folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.data import decoding
from superglue_ros.errors import DataError, ImageError
from superglue_ros.training.data.debian import licence_names, unpack_package

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"
MIN_SIDE = 480
"""Pixels of the shorter side below which an image is too small to cut views from."""

TEST_SHARE = 6
"""One photograph in this many belongs to the test split, chosen by its hash."""

WORLDS = "worlds"
FURNITURE = "furniture"
KINDS = ("photographs", "training-photographs", "textures", WORLDS, FURNITURE)
"""Kinds of sources: photographs, some of them for testing; photographs for training only, so that a
new source does not change the test split; textures, for training only; games, of which the maps are
taken (:mod:`superglue_ros.training.data.world_corpus`), and libraries of furniture, of which the
models are taken (:mod:`superglue_ros.training.data.furniture_corpus`), and no images.
"""
WITHOUT_IMAGES = (WORLDS, FURNITURE)

_ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".webp", ".bmp", ".tif", ".tiff"}
_DUPLICATE_BITS = 40  # of 256: near-duplicates differ in fewer bits of their difference hash
# Maps of a renderer, icons and drawings that packages contain besides photographs.
_NOT_PICTURES = (
    "norm", "_n.", "_nm", "_s.", "spec", "gloss", "_g.", "luma", "_h.", "height", "alpha", "mask",
    "minimap", "preview", "screenshot", "font", "hud", "menu", "logo", "icon", "noise", "banner",
    "lena",
)  # fmt: skip

Item = TypeVar("Item")


@dataclass(frozen=True)
class Source:
    """Where images come from: a Debian package, or a folder of the user's.

    ``kind``, one of :data:`KINDS`, says whether its images may serve as test photographs.
    """

    name: str
    folder: Path
    licence: str
    kind: str = "photographs"


@dataclass(frozen=True)
class CorpusImage:
    """One line of the manifest. ``path`` is absolute or relative to the manifest's folder."""

    path: str
    sha256: str
    width: int
    height: int
    source: str
    licence: str
    photograph: bool
    split: str


def debian_sources(packages: Sequence[tuple[str, str]], folder: Path) -> list[Source]:
    """Download and unpack ``packages`` of (name, kind) below ``folder``.

    A package that can't be downloaded is logged and skipped; raises :class:`DataError` if all fail.
    """
    sources = []
    for name, kind in packages:
        target = folder / "packages" / name
        try:
            unpack_package(name, target)
        except DataError as error:
            log.warning("%s", error)
            continue
        sources.append(Source(name, target, licence_names(target, name), kind))
    if packages and not sources:
        raise DataError("no package of the list could be had: see the warnings above")
    return sources


def collect(sources: Iterable[Source], folder: Path) -> list[CorpusImage]:
    """Write the manifest of all usable images of ``sources`` into ``folder`` and return it.

    Kinds come in the order of :data:`KINDS`, large images before small ones, so that the better of
    two near-duplicates stays. Raises :class:`DataError` if nothing usable is found.
    """
    candidates = [
        (KINDS.index(source.kind), *candidate)
        for source in sources
        if source.kind not in WITHOUT_IMAGES
        for path in sorted(source.folder.rglob("*"))
        if (candidate := _inspect(path, source)) is not None
    ]
    candidates.sort(key=lambda c: (c[0], -c[1].width * c[1].height, c[1].sha256))
    kept: list[CorpusImage] = []
    hashes = np.zeros((len(candidates), 256), bool)
    for _, image, fingerprint in candidates:
        if kept and (hashes[: len(kept)] != fingerprint).sum(axis=1).min() < _DUPLICATE_BITS:
            continue
        hashes[len(kept)] = fingerprint
        kept.append(image)
    if not kept:
        raise DataError(
            f"no usable image found: images need {MIN_SIDE} pixels on the shorter side, "
            f"structure, and one of the endings {', '.join(sorted(_ENDINGS))}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(image), ensure_ascii=False) for image in kept]
    (folder / MANIFEST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return kept


def read_list(file: Path, kind: type[Item], name: str) -> list[Item]:
    """Dataclasses ``kind``, one JSON object per line of ``file``.

    Raises OSError where it cannot be read, and :class:`DataError`, which names the line and says
    that it is no ``name``.
    """
    items = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no list of text lines: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            items.append(kind(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}, line {number}, is not a {name}: {error}") from error
    return items


def read_manifest(folder: str | Path, split: str = "") -> list[CorpusImage]:
    """The corpus in ``folder``; ``split`` is ``train``, ``test``, or empty for both.

    Paths are absolute. Raises :class:`DataError` where there is no valid manifest, or no
    image of the split in it.
    """
    file = Path(folder) / MANIFEST
    try:
        listed = read_list(file, CorpusImage, "corpus image")
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}): collect a corpus with "
            f"'superglue-ros train corpus'"
        ) from error
    images = []
    for image in listed:
        path = Path(image.path)
        absolute = path if path.is_absolute() else file.parent / path
        images.append(CorpusImage(**{**asdict(image), "path": str(absolute)}))
    chosen = [image for image in images if split in ("", image.split)]
    if not chosen:
        raise DataError(f"{file} has no image of the split {split!r}: collect more images")
    return chosen


def read_grey(path: str | Path, flags: int = cv2.IMREAD_GRAYSCALE) -> NDArray[np.uint8]:
    """A grey image (H, W) uint8; ``flags`` may ask OpenCV for a reduced one.

    Raises :class:`DataError` where it can't be decoded or is too large (``data/decoding.py``).
    """
    try:
        return np.asarray(decoding.read(Path(path), flags), np.uint8)
    except ImageError as error:
        raise DataError(f"{error}; remove it from the corpus") from error


def split_of(sha256: str, kind: str) -> str:
    """``test`` for one in :data:`TEST_SHARE` photographs allowed for testing, by content only."""
    return "test" if kind == "photographs" and int(sha256[:8], 16) % TEST_SHARE == 0 else "train"


def _inspect(path: Path, source: Source) -> tuple[CorpusImage, NDArray[np.bool_]] | None:
    """The image's line and difference hash, or None if it is unusable."""
    if path.suffix.lower() not in _ENDINGS or path.is_symlink() or not path.is_file():
        return None
    if path.stat().st_size < 40_000 or any(word in path.name.lower() for word in _NOT_PICTURES):
        return None
    try:
        image = decoding.read(path, cv2.IMREAD_UNCHANGED)
    except ImageError as error:
        log.warning("%s; it is left out", error)
        return None
    if image.dtype != np.uint8 or min(image.shape[:2]) < MIN_SIDE:
        return None
    if image.ndim == 3 and image.shape[2] == 4:
        if (image[..., 3] < 250).mean() > 0.02:
            return None  # a cut-out on a transparent background
        image = image[..., :3]
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (256, 192), interpolation=cv2.INTER_AREA)
    if not _has_structure(np.asarray(small, np.uint8)):
        return None
    coarse = cv2.resize(small, (17, 16), interpolation=cv2.INTER_AREA)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    line = CorpusImage(
        path=str(path.resolve()),
        sha256=sha256,
        width=grey.shape[1],
        height=grey.shape[0],
        source=source.name,
        licence=source.licence,
        photograph=source.kind != "textures",
        split=split_of(sha256, source.kind),
    )
    return line, np.asarray(coarse[:, 1:] > coarse[:, :-1]).ravel()


def _has_structure(grey: NDArray[np.uint8]) -> bool:
    """Whether an image shows enough to find keypoints in: grey levels, detail, few flat areas."""
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    values = grey.astype(np.float32)
    detail = float(np.abs(cv2.Laplacian(values, cv2.CV_32F)).mean())
    variance = cv2.blur(values**2, (5, 5)) - cv2.blur(values, (5, 5)) ** 2
    entropy = float(-(share * np.log2(share)).sum())
    return (
        entropy > 5.0 and detail > 2.0 and len(share) >= 60 and float((variance < 1).mean()) < 0.6
    )
