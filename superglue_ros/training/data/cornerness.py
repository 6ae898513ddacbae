"""How well a point can be localised: corners in both directions, edges in one only."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SMOOTHING_PX = 1.0  # of the image, against noise
_WINDOW_PX = 9  # over which gradients are summed
_NOISE_FLOOR = 0.1  # squared gradient, (grey levels / pixel)^2, of residual noise


def cornerness(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Smaller over larger eigenvalue of the structure tensor at every pixel, (H, W) in [0, 1].

    ``image`` (H, W). 0 along a straight edge, where a keypoint slides (the aperture problem), and
    in empty areas; SIFT discards keypoints by the same ratio, of the Hessian (Lowe 2004, section
    4.1).
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _SMOOTHING_PX)
    x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    xx, yy, xy = (cv2.blur(product, (_WINDOW_PX, _WINDOW_PX)) for product in (x * x, y * y, x * y))
    middle = (xx + yy) / 2
    spread = np.sqrt(np.square((xx - yy) / 2) + np.square(xy))
    ratio = (middle - spread) / (middle + spread + _NOISE_FLOOR)
    return np.asarray(np.clip(ratio, 0.0, 1.0), np.float32)
