"""Cameras: intrinsics, distortion, and pixels to rays and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.errors import CalibrationError
from superglue_ros.geometry import distortion as lens

Array = NDArray[np.float64]

# Allowed numbers of coefficients of each model; the first is the full model.
_SIZES = {
    "plumb_bob": (5, 0, 4),
    "rational_polynomial": (8, 0, 4, 5, 12, 14),
    "equidistant": (4, 0),
}
_LARGEST_RATIO = 1e5  # of a focal length or offset to the image's size
_LARGEST_COEFFICIENT = 1e6
_SYNONYMS = {"": "plumb_bob", "none": "plumb_bob", "pinhole": "plumb_bob", "fisheye": "equidistant"}


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera for images of ``width`` x ``height`` pixels.

    ``matrix`` (3, 3) float64 intrinsics in pixels, of the image as published (binning and region
    of interest already applied); ``distortion`` OpenCV order (k1 k2 p1 p2 k3 k4 k5 k6, for
    ``equidistant`` k1 k2 k3 k4), empty where the image is rectified; ``model`` is ``plumb_bob``,
    ``rational_polynomial`` or ``equidistant`` (fisheye).

    Raises :class:`CalibrationError` on values that are not finite or of no camera, a focal length
    that is not positive, an unknown model, or a number of coefficients the model does not have.
    """

    width: int
    height: int
    matrix: Array
    distortion: Array
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        matrix = _array(self.matrix, "the camera matrix K", 9).reshape(3, 3)
        model = _SYNONYMS.get(self.model, self.model)
        if model not in _SIZES:
            raise CalibrationError(
                f"distortion model {self.model!r} is unknown: known are {', '.join(_SIZES)}"
            )
        distortion = _array(self.distortion, "the distortion coefficients D")
        if distortion.size not in _SIZES[model]:
            raise CalibrationError(
                f"D has {distortion.size} coefficients: {model} has {_SIZES[model][0]}"
            )
        if model != "equidistant" and np.any(distortion[8:]):
            raise CalibrationError(
                "D has thin-prism or tilt coefficients, which are not supported: "
                "calibrate with the rational model of 8 coefficients"
            )
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f"the camera's images are {self.width}x{self.height} pixels: give the true size"
            )
        if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise CalibrationError(
                f"focal lengths are {matrix[0, 0]:g} and {matrix[1, 1]:g} px: both must be positive"
            )
        # Generous: a crop of 16 pixels from a large sensor behind a long lens is well within.
        largest = _LARGEST_RATIO * max(self.width, self.height)
        focal_fits = (
            min(matrix[0, 0], matrix[1, 1]) >= max(self.width, self.height) / _LARGEST_RATIO
        )
        if np.abs(matrix[:2]).max() > largest or not focal_fits:
            raise CalibrationError(
                f"K is {matrix[0].tolist()}, {matrix[1].tolist()} for images of "
                f"{self.width}x{self.height} pixels, which no camera has: calibrate it again"
            )
        if matrix[1, 0] != 0 or np.abs(matrix[2] - (0, 0, 1)).max() > 1e-6:
            raise CalibrationError(
                "K must be (fx s cx, 0 fy cy, 0 0 1): calibrate the camera again"
            )
        if np.abs(distortion).max(initial=0) > _LARGEST_COEFFICIENT:
            raise CalibrationError(
                f"D has a coefficient beyond {_LARGEST_COEFFICIENT:g}: calibrate the camera again"
            )
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "distortion", distortion[:8])

    @property
    def focal(self) -> float:
        """Geometric mean of the two focal lengths, pixels per unit of the normalised plane."""
        return float(np.sqrt(self.matrix[0, 0] * self.matrix[1, 1]))

    @property
    def distorted(self) -> bool:
        """Whether the camera has lens distortion."""
        return self.model == "equidistant" or bool(np.any(self.distortion))

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same images at ``width`` x ``height`` pixels."""
        x, y = width / self.width, height / self.height
        resize = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
        return replace(self, width=width, height=height, matrix=resize @ self.matrix)

    def rays(self, points: ArrayLike) -> Array:
        """Normalised, undistorted image coordinates (N, 2) float64 of pixels (N, 2).

        The ray of a row (x, y) is (x, y, 1) in optical axes. NaN for pixels that no ray in front of
        the camera reaches under the distortion model (possible near the corners of wide lenses).
        """
        pixels = np.asarray(points, np.float64).reshape(-1, 2)
        matrix = self.matrix
        y = (pixels[:, 1] - matrix[1, 2]) / matrix[1, 1]
        x = (pixels[:, 0] - matrix[0, 2] - matrix[0, 1] * y) / matrix[0, 0]
        plane = np.column_stack((x, y))
        if not self.distorted:
            return plane
        if self.model == "equidistant":
            return lens.undistort_equidistant(plane, self._coefficients(4))
        return lens.undistort_rational(plane, self._coefficients(8))

    def distort(self, rays: ArrayLike) -> Array:
        """Pixels (N, 2) float64 of normalised image coordinates (N, 2); inverse of :meth:`rays`."""
        plane, _ = self._distort(np.asarray(rays, np.float64).reshape(-1, 2))
        matrix = self.matrix
        u = matrix[0, 0] * plane[:, 0] + matrix[0, 1] * plane[:, 1] + matrix[0, 2]
        return np.column_stack((u, matrix[1, 1] * plane[:, 1] + matrix[1, 2]))

    def project(self, points: ArrayLike) -> Array:
        """Pixels (N, 2) float64 of camera-frame points (N, 3); NaN where z <= 0."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        depth = np.where(points[:, 2] > 0, points[:, 2], np.nan)
        return self.distort(points[:, :2] / depth[:, None])

    def ray_sigma(self, rays: ArrayLike, sigma_px: ArrayLike) -> Array:
        """Standard deviations (N,) on the normalised plane of pixels known to ``sigma_px`` (N,).

        ``rays`` (N, 2) are those of the pixels. Isotropic: the root of the area that distortion
        gives to a pixel, which far from the image centre is not 1 / focal.
        """
        _, jacobian = self._distort(np.asarray(rays, np.float64).reshape(-1, 2))
        area = np.abs(lens.determinant(jacobian))
        return np.asarray(sigma_px, np.float64) / (self.focal * np.sqrt(np.maximum(area, 1e-4)))

    def _distort(self, plane: Array) -> tuple[Array, Array]:
        if not self.distorted:
            return plane, np.broadcast_to(np.eye(2), (len(plane), 2, 2))
        if self.model == "equidistant":
            return lens.equidistant(plane, self._coefficients(4))
        return lens.rational(plane, self._coefficients(8))

    def _coefficients(self, count: int) -> Array:
        return np.pad(self.distortion, (0, count - self.distortion.size))


def camera_from_info(
    width: int,
    height: int,
    k: Sequence[float] | Array,
    d: Sequence[float] | Array = (),
    p: Sequence[float] | Array | None = None,
    *,
    model: str = "plumb_bob",
    binning_x: int = 0,
    binning_y: int = 0,
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    rectified: bool = False,
) -> Camera | None:
    """The camera of the published image, from the values of a ``sensor_msgs/CameraInfo``.

    ``width``, ``height``, ``k`` (9), ``d``, ``p`` (12) hold for the full sensor; ``binning_x`` and
    ``binning_y`` (0 = 1) and ``roi`` (x_offset, y_offset, width, height, in full-resolution pixels,
    all zero = everything) define the part and resolution of the image. A rectified image
    follows ``p`` and has no distortion; a raw one follows ``k`` and ``d``.

    A binned super-pixel has its centre in the middle of its pixels, so a full-resolution column u
    becomes (u - x_offset + 0.5) / binning_x - 0.5.

    Returns None for an uncalibrated camera, which by the message's definition has k[0] = 0.
    Raises :class:`CalibrationError` naming the field at fault.
    """
    intrinsics = _array(k, "K", 9).reshape(3, 3)
    if intrinsics[0, 0] == 0:
        return None
    distortion: Array = _array(d, "D")
    if rectified:
        projection = _array(p if p is not None else np.zeros(12), "P", 12).reshape(3, 4)
        if projection[0, 0] != 0:
            intrinsics = projection[:, :3]
        elif np.any(distortion):
            raise CalibrationError(
                "P is not set though the image is rectified and K is that of a distorted image: "
                "publish the P of the rectification"
            )
        distortion, model = np.zeros(0), "plumb_bob"
    bin_x, bin_y = max(int(binning_x), 1), max(int(binning_y), 1)
    x, y, roi_width, roi_height = (int(value) for value in roi)
    if not roi_width or not roi_height:
        roi_width, roi_height = int(width) - x, int(height) - y
    if min(x, y) < 0 or x + roi_width > width or y + roi_height > height:
        raise CalibrationError(
            f"the region of interest {roi_width}x{roi_height} at ({x}, {y}) leaves the "
            f"{width}x{height} sensor: give it in full-resolution pixels"
        )
    scale = np.diag([1 / bin_x, 1 / bin_y, 1.0])
    scale[0, 2] = (0.5 - x) / bin_x - 0.5
    scale[1, 2] = (0.5 - y) / bin_y - 0.5
    return Camera(
        width=roi_width // bin_x,
        height=roi_height // bin_y,
        matrix=scale @ intrinsics,
        distortion=distortion,
        model=model,
    )


def _array(values: Sequence[float] | Array, name: str, size: int | None = None) -> Array:
    """``values`` as a flat float64 array, checked to be finite and of ``size``."""
    array = np.array(values, np.float64).ravel()
    if size is not None and array.size != size:
        raise CalibrationError(f"{name} has {array.size} values: it must have {size}")
    if not np.isfinite(array).all():
        raise CalibrationError(f"{name} holds NaN or infinite values: calibrate the camera again")
    return array
