"""Where karts drive on a track of SuperTuxKart: quadrilaterals, in the order of driving."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError

Array = NDArray[np.float64]

_LONGEST_M = 1000.0


def quads_of(root: Element, name: str) -> Array:
    """Corners (Q, 4, 3) [m] of ``quads.xml``: rear left, rear right, front right, front left.

    A corner is three numbers, or ``i:j``, the j-th of quad i before it. ``name`` is for errors,
    and axes are the file's; raises :class:`DataError` where a corner is neither.
    """
    quads: list[list[list[float]]] = []
    for element in root.iter("quad"):
        quad = []
        for corner in range(4):
            text = element.get(f"p{corner}", "")
            try:
                before, colon, which = text.partition(":")
                quad.append(quads[int(before)][int(which)] if colon else _vector(text.split()))
            except (ValueError, IndexError) as error:
                raise DataError(
                    f"{name}: quad {len(quads)} has a corner p{corner} of {text!r}: give three "
                    f"numbers, or QUAD:CORNER of one before it"
                ) from error
        quads.append(quad)
    return _checked(quads, name)


def faces_of(root: Element, name: str) -> Array:
    """Corners (Q, 4, 3) [m] of the faces of ``navmesh.xml``, which arenas have instead.

    Raises :class:`DataError` where a face refers to a vertex that is not there.
    """
    try:
        vertices = [_vector([v.get(axis, "") for axis in "xyz"]) for v in root.iter("vertex")]
        faces = [[int(i) for i in f.get("indices", "").split()] for f in root.iter("face")]
        quads = [[vertices[i] for i in (face + face[-1:] * 4)[:4]] for face in faces if face]
    except (ValueError, IndexError) as error:
        raise DataError(f"{name} has a face that cannot be read: {error}") from error
    return _checked(quads, name)


def _checked(corners: list[list[list[float]]], name: str) -> Array:
    quads = np.array(corners, np.float64).reshape(-1, 4, 3)
    if not (np.ptp(quads, axis=1) < _LONGEST_M).all():
        raise DataError(f"{name} has a quad of more than {_LONGEST_M:g} m: the track is damaged")
    return quads


def _vector(words: list[str]) -> list[float]:
    x, y, z = map(float, words)
    return [x, y, z]
