"""Descriptors that are still on the device that computed them.

A front-end hands features on as arrays. A matcher on the same device takes the tensor of such an
array instead of uploading it. The tensor is freed when it is taken, or with the array.
"""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_held: dict[int, tuple[weakref.ref[NDArray[np.float32]], Tensor]] = {}


def hold(array: NDArray[np.float32], tensor: Tensor) -> None:
    """Remember that ``tensor`` has the values of ``array``, until the array goes."""
    key = id(array)
    _held[key] = (weakref.ref(array, lambda _: _held.pop(key, None)), tensor)


def take(array: NDArray[np.float32]) -> Tensor | None:
    """The tensor of this very array, once; None where there is none, or no longer."""
    found = _held.get(id(array))
    if found is None or found[0]() is not array:
        return None
    del _held[id(array)]
    return found[1]
