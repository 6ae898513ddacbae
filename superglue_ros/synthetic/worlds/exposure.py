"""How a camera turns light into grey values: exposure and gamma."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def gain_for(radiance: Floats, mean: float, gamma: float) -> float:
    """The gain with which an image is about ``mean`` (0 to 1) bright, as by auto-exposure."""
    middle = float(radiance.mean())
    return mean ** (1 / gamma) / max(middle, 1e-4)


def expose(radiance: Floats, gain: float, gamma: float) -> NDArray[np.uint8]:
    """Grey values (H, W): 255 times (gain x radiance) to the power of ``gamma``, cut at white."""
    grey = cv2.pow(np.clip(radiance * np.float32(gain), 0, 1), gamma)
    return np.rint(255 * grey).astype(np.uint8)
