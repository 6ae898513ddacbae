"""Front-ends: images to local features, all behind one interface.

A front-end detects and describes, or describes pixels that somebody else detected. ``detector``
names the kind of its descriptors; a matcher refuses a kind it was not made for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.backends import superpoint_engine
from superglue_ros.config import Config, FrontEndConfig
from superglue_ros.image import Resized, resize, to_tensor
from superglue_ros.precision import MapsImages, short_name
from superglue_ros.superpoint import (
    SuperPointConfig,
    non_maximum_suppression,
    refine_keypoints,
    sample_descriptors,
    select_keypoints,
)
from superglue_ros.types import Features, FloatArray
from superglue_ros.weights import load_superpoint

GreyImage = NDArray[np.uint8]

_SUBPIXEL_RADIUS = 2


class FrontEnd(Protocol):
    """What every front-end can do; ``test/contract`` holds what that means.

    ``precision``: the arithmetic in effect, as the setting of that name spells it.
    """

    detector: str
    descriptor_dim: int

    @property
    def precision(self) -> str:
        """Of the network, if there is one."""

    def extract(self, image: GreyImage) -> Features:
        """Detect and describe: the best ``max_keypoints`` of a grey (H, W) uint8 image."""
        ...

    def extract_all(self, images: Sequence[GreyImage]) -> list[Features]:
        """The same for several images of any size; a network takes those of equal size together."""
        return [self.extract(image) for image in images]

    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """Describe given pixels (N, 2), in the given order, all of them; scores are 1."""
        ...

    def configure(self, config: FrontEndConfig) -> None:
        """Take new settings, from the next image on; the fixed ones are as they were."""
        ...


class SuperPointFrontEnd:
    """SuperPoint on the image shrunk to ``max_size``; keypoints in pixels of the original."""

    def __init__(
        self,
        engine: MapsImages,
        kind: str,
        architecture: SuperPointConfig,
        config: FrontEndConfig,
        device: torch.device,
    ) -> None:
        self.detector = kind
        self.descriptor_dim = architecture.descriptor_dim
        self._exact_sampling = architecture.exact_sampling
        self._engine = engine
        self._config = config
        self._device = device

    @property
    def precision(self) -> str:
        """See :class:`FrontEnd`."""
        return short_name(self._engine.dtype)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`FrontEnd`."""
        self._config = config

    def extract(self, image: GreyImage) -> Features:
        """See :class:`FrontEnd`."""
        return self.extract_all([image])[0]

    @torch.inference_mode()
    def extract_all(self, images: Sequence[GreyImage]) -> list[Features]:
        """See :class:`FrontEnd`."""
        resized = [resize(image, self._config.max_size) for image in images]
        tensors = [to_tensor(one.image, self._device) for one in resized]
        by_shape: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(tensors):
            by_shape.setdefault(tensor.shape, []).append(index)
        found: dict[int, Features] = {}
        for indices in by_shape.values():
            probability, dense = self._engine.maps(torch.cat([tensors[i] for i in indices]))
            for row, i in enumerate(indices):
                maps = probability[row : row + 1], dense[row : row + 1]
                found[i] = self._detect(images[i], resized[i], *maps)
        return [found[i] for i in range(len(images))]

    def _detect(
        self, image: GreyImage, resized: Resized, probability: torch.Tensor, dense: torch.Tensor
    ) -> Features:
        """The best keypoints of one image from its maps (1, H, W) and (1, D, H/8, W/8)."""
        config = self._config
        height, width = resized.image.shape
        scores = probability[:, :height, :width]
        if config.nms_radius:
            scores = non_maximum_suppression(scores, config.nms_radius)
        keypoints, values = select_keypoints(
            scores[0], config.max_keypoints, config.threshold, config.border
        )
        if config.subpixel:
            radius = min(_SUBPIXEL_RADIUS, config.nms_radius)  # clear of other keypoints
            keypoints = refine_keypoints(probability[0, :height, :width], keypoints, radius)
        original = resized.to_original(keypoints.cpu().numpy())
        return self._features(image, original, values, keypoints, dense)

    @torch.inference_mode()
    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`FrontEnd`."""
        resized = resize(image, self._config.max_size)
        _, dense = self._engine.maps(to_tensor(resized.image, self._device))
        pixels = torch.from_numpy(resized.to_resized(keypoints)).to(self._device)
        return self._features(image, keypoints, pixels.new_ones(len(pixels)), pixels, dense)

    def _features(
        self,
        image: GreyImage,
        keypoints: FloatArray,
        scores: torch.Tensor,
        pixels: torch.Tensor,
        dense: torch.Tensor,
    ) -> Features:
        descriptors = sample_descriptors(pixels[None], dense, self._exact_sampling)[0]
        height, width = image.shape
        return Features(
            keypoints,
            scores.float().cpu().numpy(),
            width,
            height,
            self.detector,
            descriptors.float().cpu().numpy(),
        )


class SiftFrontEnd(FrontEnd):
    """OpenCV SIFT with root-normalised descriptors (Arandjelovic and Zisserman, CVPR 2012)."""

    detector = "sift-root"
    descriptor_dim = 128
    precision = "float32"
    # Keypoints from outside bring no scale: the size SIFT gives most of its own keypoints.
    _outside_diameter_px = 4.0

    def __init__(self, config: FrontEndConfig) -> None:
        self.configure(config)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`FrontEnd`."""
        self._config = config
        self._sift = cv2.SIFT_create(nfeatures=config.max_keypoints)  # type: ignore[attr-defined]

    def extract(self, image: GreyImage) -> Features:
        """See :class:`FrontEnd`."""
        resized = resize(image, self._config.max_size)
        keypoints, descriptors = self._sift.detectAndCompute(resized.image, None)
        points, scores, order = _opencv_keypoints(keypoints, self._config.max_keypoints)
        height, width = image.shape
        if not len(points) or descriptors is None:
            return Features.empty(width, height, self.detector, self.descriptor_dim)
        points = _inside(resized.to_original(points), width, height)
        return Features(
            points, scores, width, height, self.detector, root_normalise(descriptors[order])
        )

    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`FrontEnd`; upright, at a fixed scale."""
        diameter = self._outside_diameter_px
        return _describe(self, self._sift, root_normalise, image, keypoints, diameter)


class OrbFrontEnd(FrontEnd):
    """OpenCV ORB; the 256 bits as 0/1 values, so that distances are roots of Hamming distances."""

    detector = "orb"
    descriptor_dim = 256
    precision = "float32"

    def __init__(self, config: FrontEndConfig) -> None:
        self.configure(config)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`FrontEnd`."""
        self._config = config
        self._orb = cv2.ORB_create(nfeatures=config.max_keypoints)  # type: ignore[attr-defined]

    def extract(self, image: GreyImage) -> Features:
        """See :class:`FrontEnd`."""
        height, width = image.shape
        resized = resize(image, self._config.max_size)
        if min(resized.image.shape) <= 2 * self._orb.getEdgeThreshold():
            return Features.empty(width, height, self.detector, self.descriptor_dim)
        keypoints, descriptors = self._orb.detectAndCompute(resized.image, None)
        points, scores, order = _opencv_keypoints(keypoints, self._config.max_keypoints)
        if not len(points) or descriptors is None:
            return Features.empty(width, height, self.detector, self.descriptor_dim)
        points = _inside(resized.to_original(points), width, height)
        return Features(points, scores, width, height, self.detector, _bits(descriptors[order]))

    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`FrontEnd`; keypoints too near the border get zero descriptors."""
        diameter = float(self._orb.getPatchSize())
        return _describe(self, self._orb, _bits, image, keypoints, diameter)


def make_front_end(config: Config, device: torch.device) -> FrontEnd:
    """The front-end that ``config.front_end`` names."""
    if config.front_end.name == "superpoint":
        loaded = load_superpoint(config.front_end.weights)
        engine = superpoint_engine(loaded, config, device)
        return SuperPointFrontEnd(
            engine, loaded.kind, loaded.network.config, config.front_end, device
        )
    if config.front_end.name == "sift":
        return SiftFrontEnd(config.front_end)
    return OrbFrontEnd(config.front_end)


def root_normalise(descriptors: FloatArray) -> FloatArray:
    """RootSIFT: L1-normalise and take the square root; rows of zeros stay zero."""
    total = np.abs(descriptors).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1e-12)), np.float32)


def _describe(
    front_end: SiftFrontEnd | OrbFrontEnd,
    extractor: Any,
    convert: Callable[[Any], FloatArray],
    image: GreyImage,
    keypoints: FloatArray,
    diameter_px: float,
) -> Features:
    """Given pixels by an OpenCV extractor; those it cannot describe get zero descriptors."""
    height, width = image.shape
    dim = front_end.descriptor_dim
    if not len(keypoints):
        return Features.empty(width, height, front_end.detector, dim)
    resized = resize(image, front_end._config.max_size)
    # OpenCV may drop or reorder keypoints: class_id carries the index through.
    given = [
        cv2.KeyPoint(float(x), float(y), diameter_px, 0.0, 1.0, 0, i)
        for i, (x, y) in enumerate(resized.to_resized(keypoints))
    ]
    kept, computed = extractor.compute(resized.image, given)
    descriptors = np.zeros((len(keypoints), dim), np.float32)
    if computed is not None:
        descriptors[[k.class_id for k in kept]] = convert(computed)
    scores = np.ones(len(keypoints), np.float32)
    return Features(keypoints, scores, width, height, front_end.detector, descriptors)


def _opencv_keypoints(
    keypoints: tuple[cv2.KeyPoint, ...] | list[cv2.KeyPoint], limit: int
) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Points (N, 2), scores in [0, 1] by falling response, and their order in ``keypoints``."""
    responses = np.array([k.response for k in keypoints], np.float32)
    order = np.argsort(-responses, kind="stable")[:limit]
    points = np.array([keypoints[i].pt for i in order], np.float32).reshape(-1, 2)
    scores = responses[order]
    if len(scores) and scores[0] > 0:
        scores = np.clip(scores / scores[0], 0, 1)
    return points, scores, order


def _inside(points: FloatArray, width: int, height: int) -> FloatArray:
    """Sub-pixel refinement may leave the image by a fraction of a pixel; bring those back."""
    return np.clip(points, -0.5, np.array([width - 0.5, height - 0.5], np.float32))


def _bits(descriptors: NDArray[np.uint8]) -> FloatArray:
    return np.unpackbits(descriptors, axis=1).astype(np.float32)
