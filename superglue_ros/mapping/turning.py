"""How fast the camera turns, from the rotations that tracking measures.

What a rolling shutter does to the pixels of an image is mostly due to the camera's rotation while
the rows are exposed, and that part does not depend on the depth of what is seen
(:func:`~superglue_ros.geometry.rolling_shutter.rotation_shift`). A new frame turns as it did since
the frame before; once the next frame is there, the mean of both steps is more exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.rotation import log
from superglue_ros.mapping.verification import FramePair
from superglue_ros.types import FrameId, PoseStatus

Array = NDArray[np.float64]

_SURE = (PoseStatus.VALID, PoseStatus.ROTATION_ONLY)
_LONGEST_STEP_S = 0.5  # after a longer one the camera may have done anything


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame; its rotation from each reference, ``R_ref_frame``; ``step`` to it, or None."""

    frame: FrameId
    rotations: dict[FrameId, Array]
    step: _Step | None


@dataclass(frozen=True, eq=False)
class _Step:
    """A rotation vector (3,) in radians and the time that it took."""

    vector: Array
    seconds: float

    @property
    def rate(self) -> Array:
        """Angular velocity (3,) rad/s in the camera's axes."""
        return self.vector / self.seconds


class Turning:
    """The angular velocity of a camera, from frame to frame."""

    def __init__(self) -> None:
        self._last: _Seen | None = None

    def forget(self) -> None:
        """Know nothing, as at the start and after a reset."""
        self._last = None

    def expected(self, frame: FrameId) -> Array | None:
        """Angular velocity (3,) rad/s of the newest frame if the camera turns on as before."""
        if self._last is None or self._last.step is None or self._seconds(frame) is None:
            return None
        return self._last.step.rate

    def at(self, frame: FrameId, pairs: Sequence[FramePair]) -> Array | None:
        """Angular velocity (3,) rad/s of the newest frame, in its axes; None where not known."""
        step = self._step(frame, pairs)
        return None if step is None else step.rate

    def learn(self, frame: FrameId, pairs: Sequence[FramePair]) -> tuple[FrameId, Array] | None:
        """Take in the newest frame; returns the frame before it with its angular velocity."""
        step, last = self._step(frame, pairs), self._last
        rotations = {p.matches.reference: p.pose.rotation for p in _measured(pairs)}
        self._last = _Seen(frame, {**rotations, frame: np.eye(3)}, step)
        if step is None or last is None:
            return None
        steps = [step] if last.step is None else [last.step, step]
        total = sum((one.vector for one in steps), np.zeros(3))
        return last.frame, total / sum(one.seconds for one in steps)

    def _step(self, frame: FrameId, pairs: Sequence[FramePair]) -> _Step | None:
        """The rotation since the frame before, over the reference with the most inliers."""
        seconds = self._seconds(frame)
        if self._last is None or seconds is None:
            return None
        known = [p for p in _measured(pairs) if p.matches.reference in self._last.rotations]
        if not known:
            return None
        best = max(known, key=lambda pair: pair.pose.num_inliers)
        before = self._last.rotations[best.matches.reference]
        return _Step(log(before.T @ best.pose.rotation), seconds)

    def _seconds(self, frame: FrameId) -> float | None:
        """Since the frame before; None where there is none, or it is too long ago."""
        if self._last is None:
            return None
        seconds = (frame.stamp_ns - self._last.frame.stamp_ns) * 1e-9
        return seconds if 0 < seconds <= _LONGEST_STEP_S else None


def _measured(pairs: Sequence[FramePair]) -> list[FramePair]:
    """The pairs whose rotation is known; that of a plane may be the wrong one of two."""
    return [pair for pair in pairs if pair.calibrated and pair.pose.status in _SURE]
