"""Method and status of a relative pose."""

from __future__ import annotations

from enum import IntEnum


class PoseMethod(IntEnum):
    """Model behind a relative pose; the numbers are those of ``RelativePose.msg``."""

    NONE = 0
    ESSENTIAL = 1
    HOMOGRAPHY = 2
    PNP = 3
    STEREO = 4


class PoseStatus(IntEnum):
    """Outcome of pose estimation; the numbers are those of ``RelativePose.msg``."""

    VALID = 0
    REJECTED = 1
    FEW = 2
    ROTATION_ONLY = 3
    PLANAR = 4
    LOST = 5
    UNCONFIRMED = 6
