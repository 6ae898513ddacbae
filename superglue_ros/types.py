"""The data passed between the stages: frozen dataclasses of NumPy arrays, validated when made.

Pixels: (0, 0) is the centre of the top-left pixel of the original image.
Poses: ``T_ref_query`` maps query-camera points to the reference camera, ``x_ref = R x_query + t``,
both cameras in optical axes (x right, y down, z forward).
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import CalibrationError, FeaturesError, IdentifierError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.verdict import PoseMethod as PoseMethod
from superglue_ros.geometry.verdict import PoseStatus as PoseStatus

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
IdArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
PoseArray = NDArray[np.float64]

NO_TRACK = -1
MAX_ID = 2**62
"""Numbers of frames and landmarks are below: counting goes on above any that came from outside."""
MAX_NAME = 256
"""Characters of a name: of a robot, a TF frame, a kind of descriptors."""
MAX_STAMP_NS = (2**31 - 1) * 1_000_000_000
"""The last second of a ``builtin_interfaces/Time``."""
MAX_BASELINE_M = 1e3
MAX_DEPTH_M = 1e5
"""Depth beyond this, in metres, is no measurement and counts as unknown."""


class MatchKind(IntEnum):
    """Why two frames were matched; the numbers are those of ``Matches.msg``."""

    KEYFRAME = 0
    SEQUENTIAL = 1
    LOOP = 2
    STEREO = 3
    RELOCALISE = 4


class MatchStatus(IntEnum):
    """Outcome of matching; the numbers are those of ``Matches.msg``."""

    OK = 0
    NO_KEYPOINTS_REFERENCE = 1
    NO_KEYPOINTS_QUERY = 2
    FEW = 3
    ERROR = 4


@dataclass(frozen=True)
class FrameId:
    """Names one image permanently: ``(robot, camera_index, id)`` is never used again.

    ``stamp_ns`` is the acquisition time in nanoseconds, ``frame_id`` the TF frame of the camera.
    Raises :class:`IdentifierError` on what no message can carry: another type, a number outside
    [0, ``MAX_ID``), a camera beyond 65535, a stamp beyond ``MAX_STAMP_NS``, a name of more than
    ``MAX_NAME`` characters.
    """

    id: int
    stamp_ns: int = 0
    frame_id: str = ""
    robot: str = ""
    camera_index: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("id", 0, MAX_ID - 1),
            ("stamp_ns", -MAX_STAMP_NS, MAX_STAMP_NS),
            ("camera_index", 0, 2**16 - 1),
        ):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not low <= value <= high:
                raise IdentifierError(
                    f"{name} of a frame is {reprlib.repr(value)}: give a whole number from {low} "
                    f"to {high}"
                )
        for name in ("frame_id", "robot"):
            check_name(getattr(self, name), f"{name} of a frame")


@dataclass(frozen=True, eq=False)
class Features:
    """Local features of one image, in the order in which matches index them.

    ``keypoints`` (N, 2) float32, pixels (x, y); ``scores`` (N,) float32 in [0, 1];
    ``descriptors`` (N, D) float32, or None where only pixels are known; ``sigma_px`` (N,) float32,
    standard deviation of a keypoint in pixels, > 0; ``track_ids`` (N,) int64, -1 = no track;
    ``detector`` names the kind of the descriptors: a matcher refuses kinds it was not made for.

    Raises :class:`FeaturesError` on shapes that do not fit, values that are not finite, or
    keypoints outside the image (more than half a pixel beyond its outer pixel centres).
    """

    keypoints: FloatArray
    scores: FloatArray
    width: int
    height: int
    detector: str
    descriptors: FloatArray | None = None
    sigma_px: FloatArray = field(default=None)  # type: ignore[arg-type]  # filled in below
    track_ids: IdArray = field(default=None)  # type: ignore[arg-type]  # filled in below

    def __post_init__(self) -> None:
        n = len(self.keypoints)
        _set(self, "keypoints", np.ascontiguousarray(self.keypoints, np.float32).reshape(-1, 2))
        _set(self, "scores", np.ascontiguousarray(self.scores, np.float32))
        if self.descriptors is not None:
            _set(self, "descriptors", np.ascontiguousarray(self.descriptors, np.float32))
        if self.sigma_px is None:
            _set(self, "sigma_px", np.ones(n, np.float32))
        if self.track_ids is None:
            _set(self, "track_ids", np.full(n, NO_TRACK, np.int64))
        self._validate()

    def _validate(self) -> None:
        n = len(self.keypoints)
        if not all(isinstance(size, (int, np.integer)) for size in (self.width, self.height)):
            raise FeaturesError(f"the image of keypoints is {self.width!r}x{self.height!r} pixels")
        for name in ("scores", "sigma_px", "track_ids"):
            if getattr(self, name).shape != (n,):
                raise FeaturesError(
                    f"{name} has shape {getattr(self, name).shape} for {n} keypoints: "
                    f"give one value per keypoint"
                )
        if self.descriptors is not None and (
            self.descriptors.ndim != 2 or len(self.descriptors) != n
        ):
            raise FeaturesError(
                f"descriptors have shape {self.descriptors.shape} for {n} keypoints: "
                f"give one row per keypoint"
            )
        check_name(self.detector, "the detector of keypoints")
        for name in ("keypoints", "scores", "sigma_px", "descriptors"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                bad = int((~np.isfinite(values.reshape(n, -1))).any(axis=1).sum())
                raise FeaturesError(
                    f"{name} of {bad} of {n} keypoints are NaN or infinite: "
                    f"drop these keypoints before sending"
                )
        if n and not self.sigma_px.min() > 0:
            raise FeaturesError(
                f"sigma_px of {int((self.sigma_px <= 0).sum())} of {n} keypoints is not positive: "
                f"give standard deviations in pixels, or leave sigma_px empty"
            )
        if n and not (self.track_ids.min() >= NO_TRACK and self.track_ids.max() < MAX_ID):
            raise FeaturesError(
                f"track_ids span {self.track_ids.min()}..{self.track_ids.max()}: give numbers "
                f"from 0 to {MAX_ID - 1}, or -1 for none"
            )
        if n:
            low = self.keypoints.min(axis=0)
            high = self.keypoints.max(axis=0)
            if low.min() < -0.5 or high[0] > self.width - 0.5 or high[1] > self.height - 0.5:
                raise FeaturesError(
                    f"keypoints span x {low[0]:.1f}..{high[0]:.1f}, y {low[1]:.1f}..{high[1]:.1f}, "
                    f"outside the {self.width}x{self.height} image: give pixels of the original "
                    f"image, (0, 0) the centre of the top-left pixel"
                )

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def descriptor_dim(self) -> int:
        """D, or 0 where there are no descriptors."""
        return 0 if self.descriptors is None else self.descriptors.shape[1]

    def select(self, indices: NDArray[np.intp]) -> Features:
        """The features at ``indices``, in that order."""
        return replace(
            self,
            keypoints=self.keypoints[indices],
            scores=self.scores[indices],
            descriptors=None if self.descriptors is None else self.descriptors[indices],
            sigma_px=self.sigma_px[indices],
            track_ids=self.track_ids[indices],
        )

    def best(self, limit: int) -> tuple[Features, NDArray[np.intp]]:
        """The ``limit`` features of highest score, in their order, and their indices here."""
        if len(self) <= limit:
            return self, np.arange(len(self))
        places = np.sort(np.argsort(-self.scores, kind="stable")[:limit])
        return self.select(places), places

    @classmethod
    def empty(cls, width: int, height: int, detector: str, descriptor_dim: int) -> Features:
        """Zero features."""
        return cls(
            np.zeros((0, 2), np.float32),
            np.zeros(0, np.float32),
            width,
            height,
            detector,
            np.zeros((0, descriptor_dim), np.float32),
        )


@dataclass(frozen=True, eq=False)
class RightView:
    """The right image of a rectified stereo pair, of which a frame is the left one.

    ``image`` (H, W) uint8 grey; ``baseline`` metres, > 0: the right camera's
    position on the left one's x axis. Raises :class:`ImageError` and :class:`CalibrationError`.
    """

    id: FrameId
    image: NDArray[np.uint8]
    camera: Camera
    baseline: float

    def __post_init__(self) -> None:
        _check_grey(self.image, "right image")
        if not 0 < self.baseline <= MAX_BASELINE_M:
            raise CalibrationError(
                f"the baseline of the stereo pair is {self.baseline:g} m: it must be positive and "
                f"at most {MAX_BASELINE_M:g}"
            )


@dataclass(frozen=True, eq=False)
class Frame:
    """One image with its calibration and optional inputs.

    ``image`` (H, W) uint8 grey, not empty; ``camera`` None or uncalibrated: matches yes, pose no;
    ``keypoints`` from an outside front-end, with or without descriptors; ``depth`` (H, W) float32
    metres, registered to the image, unknown where not in (0, ``MAX_DEPTH_M``]; ``right``, the right
    image of a rectified stereo pair, excludes ``depth``; ``usable`` (H, W) bool, the pixels that
    keypoints may lie on, None = all. Raises :class:`ImageError` and
    :class:`CalibrationError`.
    """

    id: FrameId
    image: NDArray[np.uint8]
    camera: Camera | None = None
    keypoints: Features | None = None
    depth: FloatArray | None = None
    rectified: bool = False
    right: RightView | None = None
    usable: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        _check_grey(self.image, "image")
        if self.usable is not None and self.usable.shape != self.image.shape:
            raise ImageError(
                f"the mask is {self.usable.shape[1]}x{self.usable.shape[0]} but the image is "
                f"{self.image.shape[1]}x{self.image.shape[0]}: give a mask of the image's size"
            )
        if self.depth is not None and self.depth.shape != self.image.shape:
            raise ImageError(
                f"depth is {self.depth.shape[1]}x{self.depth.shape[0]} but the image is "
                f"{self.image.shape[1]}x{self.image.shape[0]}: register the depth to the image"
            )
        if self.right is not None:
            self._check_stereo(self.right)

    def _check_stereo(self, right: RightView) -> None:
        if right.image.shape != self.image.shape:
            raise ImageError(
                f"the right image is {right.image.shape[1]}x{right.image.shape[0]} but the left "
                f"one is {self.image.shape[1]}x{self.image.shape[0]}: give a rectified pair of one "
                f"size"
            )
        if self.camera is None:
            raise CalibrationError("a stereo pair has no calibration: calibrate both cameras")
        if not self.rectified or self.camera.distorted or right.camera.distorted:
            raise CalibrationError("a stereo pair is not rectified: give the rectified images")
        if self.depth is not None:
            raise ImageError("a stereo pair brings depth of its own: give the one or the other")


@dataclass(frozen=True, eq=False)
class Correspondences:
    """A one-to-one partial assignment between two feature sets, highest confidence first.

    ``index_ref``, ``index_query`` (K,) int32 into the two sets; ``scores`` (K,) float32 in [0, 1];
    ``turns``: quarters by which the query's image was turned anticlockwise to find them.
    """

    index_ref: IntArray
    index_query: IntArray
    scores: FloatArray
    turns: int = 0

    def __len__(self) -> int:
        return len(self.index_ref)

    @classmethod
    def empty(cls) -> Correspondences:
        """Zero correspondences."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Matches:
    """Verified correspondences of a reference and a query frame.

    Arrays of length K: ``index_ref``, ``index_query`` int32; ``points_ref``, ``points_query``
    (K, 2) float32 pixels of the original images, those of the query refined against the reference;
    ``scores`` float32, the matcher's confidence: of SuperGlue the assignment probability, with
    ``verification`` the probability of being right;
    ``inlier`` bool, agrees with the estimated two-view geometry (all False where there is none);
    ``sigma_px`` float32; ``track_ids`` int64, -1 = none.

    ``merged_from``, ``merged_into`` (J,) int64: landmarks that a loop identified; from now on the
    second id replaces the first.
    """

    reference: FrameId
    query: FrameId
    kind: MatchKind
    status: MatchStatus
    index_ref: IntArray
    index_query: IntArray
    points_ref: FloatArray
    points_query: FloatArray
    scores: FloatArray
    inlier: BoolArray
    sigma_px: FloatArray
    track_ids: IdArray
    rectified: bool = False
    merged_from: IdArray = field(default_factory=lambda: np.zeros(0, np.int64))
    merged_into: IdArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.index_ref)


@dataclass(frozen=True, eq=False)
class RelativePose:
    """Pose of the query camera in the reference camera, with its uncertainty and quality.

    ``rotation`` (3, 3) and ``translation`` (3,) float64: ``x_ref = R x_query + t``; the translation
    has unit norm unless ``scale_known`` (then metres). ``covariance`` (6, 6), order x y z then
    rotation about fixed axes, reference frame; all zero = unknown, [0, 0] = -1 = no estimate.
    ``inlier_threshold_px`` and ``median_epipolar_px`` in pixels, ``median_parallax_rad`` in
    radians; the medians are NaN without inliers.
    """

    reference: FrameId
    query: FrameId
    status: PoseStatus
    method: PoseMethod
    rotation: PoseArray
    translation: PoseArray
    covariance: PoseArray
    scale_known: bool
    num_matches: int
    num_inliers: int
    inlier_threshold_px: float
    median_epipolar_px: float
    median_parallax_rad: float


def known_depth(depth: NDArray[Any]) -> FloatArray:
    """Depths in metres, of any shape, as float32: 0 where they are no measurement."""
    with np.errstate(invalid="ignore"):
        known = (depth > 0) & (depth <= MAX_DEPTH_M)
    return np.where(known, depth, 0).astype(np.float32)


def check_name(value: Any, name: str) -> None:
    """Raises :class:`IdentifierError` where ``value`` is no text or a too long one."""
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise IdentifierError(
            f"{name} is {reprlib.repr(value)}: give a text of at most {MAX_NAME} characters"
        )


def _check_grey(image: NDArray[Any], name: str) -> None:
    if image.ndim != 2 or image.size == 0 or image.dtype != np.uint8:
        raise ImageError(
            f"{name} has shape {image.shape} and type {image.dtype}: "
            f"give a non-empty (H, W) grey uint8 image"
        )


def _set(instance: Any, name: str, value: Any) -> None:
    """Assign to a frozen dataclass while it is being made."""
    object.__setattr__(instance, name, value)
