"""What cameras and furniture ask of a world: where there is room."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class FreeSpace(Protocol):
    """The places of a world where a camera may be. Positions are (3,), in metres."""

    def is_free(self, position: Array, clearance: float = 0.0) -> bool:
        """Whether ``position`` is in the open, and the six points at ``clearance`` [m] from it."""
        ...

    def draw(self, rng: np.random.Generator, clearance: float = 0.0) -> Array:
        """A random free position. Raises :class:`DataError` where none is found."""
        ...

    def heading(self, rng: np.random.Generator, position: Array) -> float:
        """A yaw [rad] that a camera at ``position`` may have, 0 along x."""
        ...

    def floor_below(self, position: Array, most_m: float = 4.0) -> Array | None:
        """The floor (3,) under a free ``position``; None if none is within ``most_m``."""
        ...
