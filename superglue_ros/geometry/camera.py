"""Cameras: intrinsics, distortion, and pixels to rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera for images of ``width`` x ``height`` pixels.

    ``matrix`` (3, 3) float64 intrinsics in pixels, of the image as published (binning and region
    of interest already applied); ``distortion`` OpenCV order (k1 k2 p1 p2 k3 k4 k5 k6), empty where
    the image is rectified; ``model`` ``plumb_bob`` or ``rational_polynomial``.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    model: str = "plumb_bob"
