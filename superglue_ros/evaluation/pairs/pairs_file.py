"""The widespread ``*_pairs_with_gt.txt`` format, and in-plane (EXIF) rotations.

A line: name0 name1 rot0 rot1 K0[9] K1[9] T_0to1[16]; matrices row-major, ``x_1 = R x_0 + t``.
``rot`` counts quarter turns counter-clockwise that bring the stored image upright; K and T refer to
the stored image. Read are also lines of glue-factory's ``pairs_calibrated.txt``, which have no
turns, and in place of T its rotation and translation, R[9] t[3], or all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError

Floats = NDArray[np.float64]
_FIELDS = 38
_CALIBRATED = (32, 36)  # without turns; R[9] t[3], or T[16]


@dataclass(frozen=True, eq=False)
class PosePair:
    """Two image names with intrinsics (3, 3) [px] and ``transform`` T_1_0 (4, 4) between them."""

    name0: str
    name1: str
    rot0: int
    rot1: int
    intrinsics0: Floats
    intrinsics1: Floats
    transform: Floats


def read_pairs(path: Path) -> list[PosePair]:
    """All pairs of a file; raises :class:`DataError` naming file and line of what is malformed."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"pairs file {path} cannot be read: {error}") from error
    pairs = [
        _parse(line.split(), f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not pairs:
        raise DataError(f"pairs file {path} holds no pairs")
    return pairs


def write_pairs(path: Path, pairs: Sequence[PosePair]) -> None:
    """Write a pairs file; numbers with 9 digits. Names must not hold spaces."""
    lines = []
    for pair in pairs:
        for name in (pair.name0, pair.name1):
            if not name or name.split() != [name]:
                raise DataError(f"image name {name!r} holds spaces: the pairs format has no place")
        numbers = np.concatenate(
            [pair.intrinsics0.ravel(), pair.intrinsics1.ravel(), pair.transform.ravel()]
        )
        values = " ".join(f"{v:.9g}" for v in numbers)
        lines.append(f"{pair.name0} {pair.name1} {pair.rot0} {pair.rot1} {values}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def _parse(fields: list[str], where: str) -> PosePair:
    if len(fields) in _CALIBRATED:
        fields = [*fields[:2], "0", "0", *fields[2:]]
        if len(fields) != _FIELDS:
            r, t = fields[-12:-3], fields[-3:]
            rows = (word for i in range(3) for word in (*r[3 * i : 3 * i + 3], t[i]))
            fields = [*fields[:-12], *rows, "0", "0", "0", "1"]
    if len(fields) != _FIELDS:
        hint = " (image names must not hold spaces)" if len(fields) > _FIELDS else ""
        raise DataError(
            f"{where}: {len(fields)} fields instead of {_FIELDS}: "
            f"name0 name1 rot0 rot1 K0[9] K1[9] T_0to1[16]{hint}"
        )
    try:
        rot0, rot1 = (int(float(f)) if float(f).is_integer() else -1 for f in fields[2:4])
        numbers = np.array([float(f) for f in fields[4:]], np.float64)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if rot0 not in range(4) or rot1 not in range(4):
        raise DataError(f"{where}: rotations {fields[2]} {fields[3]} must be 0, 1, 2 or 3")
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: intrinsics or pose are not finite")
    k0, k1 = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
    for name, k in (("K0", k0), ("K1", k1)):
        if k[0, 0] <= 0 or k[1, 1] <= 0 or not np.allclose(k[2], [0, 0, 1]):
            raise DataError(f"{where}: {name} is no intrinsic matrix: {k.ravel().tolist()}")
    transform = numbers[18:].reshape(4, 4)
    rotation = transform[:3, :3]
    if (
        not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2)
        or np.linalg.det(rotation) < 0
        or not np.allclose(transform[3], [0, 0, 0, 1], atol=1e-6)
    ):
        raise DataError(f"{where}: T_0to1 is no rigid transform")
    return PosePair(
        name0=fields[0],
        name1=fields[1],
        rot0=rot0,
        rot1=rot1,
        intrinsics0=k0,
        intrinsics1=k1,
        transform=transform,
    )


def upright_intrinsics(intrinsics: Floats, upright_size: tuple[int, int], turns: int) -> Floats:
    """Intrinsics of the stored image, turned with it by counter-clockwise quarter ``turns``.

    ``upright_size``: width and height after turning.
    """
    width, height = upright_size
    k = intrinsics
    for step in range(turns % 4):
        # A quarter turn maps pixel (x, y) to (y, width - 1 - x), with the width before the turn.
        width_before = width if (turns - step) % 2 == 0 else height
        pixels = np.array([[0, 1, 0], [-1, 0, width_before - 1], [0, 0, 1.0]])
        k = pixels @ k @ _turn(1)[:3, :3].T
    return k


def upright_pose(transform: Floats, rot0: int, rot1: int) -> Floats:
    """T_1_0 between the cameras turned with their images."""
    return _turn(rot1) @ transform @ _turn(rot0).T


def _turn(turns: int) -> Floats:
    """Camera axes after ``turns``: x' = y, y' = -x each, which is exact in integers."""
    quarter = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    return np.linalg.matrix_power(quarter, turns % 4)
