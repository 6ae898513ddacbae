"""Real photographs and every front-end and matcher, for the contract suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from superglue_ros.config import Config
from superglue_ros.data.image import to_grey
from superglue_ros.errors import ConfigError

CPU = torch.device("cpu")


def made_or_skipped(make: Callable[..., Any], config: Config) -> Any:
    """What ``make`` makes of ``config``; where its package is missing, the test is skipped."""
    try:
        return make(config, CPU)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A grey photograph, 256x192."""
    return cv2.resize(
        to_grey(skimage.data.coffee()[:, :, ::-1]), (256, 192), None, 0, 0, cv2.INTER_AREA
    )


@pytest.fixture(scope="session")
def warped(photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photograph under a known homography (3, 3), and that homography."""
    angle = np.deg2rad(6)
    cos, sin = 1.05 * np.cos(angle), 1.05 * np.sin(angle)
    homography = np.array([[cos, -sin, 8.0], [sin, cos, -12.0], [1e-4, 5e-5, 1.0]])
    height, width = photograph.shape
    return cv2.warpPerspective(photograph, homography, (width, height)), homography
