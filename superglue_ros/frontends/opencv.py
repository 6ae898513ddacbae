"""The common part of front-ends on OpenCV's feature detectors."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from superglue_ros.config import FrontEndConfig
from superglue_ros.data.image import resize
from superglue_ros.frontends.base import FrontEnd, GreyImage, inside
from superglue_ros.types import Features, FloatArray


class OpenCvFrontEnd(FrontEnd):
    """A ``cv2.Feature2D`` on the CPU, on the image shrunk to ``max_size``.

    A subclass defines how to create it, the size of given pixels, and the descriptors.
    """

    precision = "float32"

    def __init__(self, config: FrontEndConfig) -> None:
        self.configure(config)

    def configure(self, config: FrontEndConfig) -> None:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`."""
        self._config = config
        self._extractor = self._create(config.max_keypoints)

    def _create(self, max_keypoints: int) -> Any:
        """The ``cv2.Feature2D``."""
        raise NotImplementedError

    def _diameter_px(self) -> float:
        """Size of the neighbourhood that describes an external pixel, which has no scale."""
        raise NotImplementedError

    def _converted(self, descriptors: Any) -> FloatArray:
        """OpenCV's descriptors (N, ...) as (N, ``descriptor_dim``) float32."""
        raise NotImplementedError

    def _fits(self, image: GreyImage) -> bool:
        """Whether the image is large enough for the detector."""
        return True

    def extract(self, image: GreyImage) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`; scores: response over the best."""
        height, width = image.shape
        resized = resize(image, self._config.max_size)
        nothing = Features.empty(width, height, self.detector, self.descriptor_dim)
        if not self._fits(resized.image):
            return nothing
        found, descriptors = self._extractor.detectAndCompute(resized.image, None)
        if not found or descriptors is None:
            return nothing
        responses = np.array([k.response for k in found], np.float32)
        order = np.argsort(-responses, kind="stable")[: self._config.max_keypoints]
        points = np.array([found[i].pt for i in order], np.float32).reshape(-1, 2)
        scores = responses[order]
        if scores[0] > 0:
            scores = np.clip(scores / scores[0], 0, 1)
        points = inside(resized.to_original(points), width, height)
        descriptors = self._converted(descriptors[order])
        return Features(
            keypoints=points,
            scores=scores,
            width=width,
            height=height,
            detector=self.detector,
            descriptors=descriptors,
        )

    def describe(self, image: GreyImage, keypoints: FloatArray) -> Features:
        """See :class:`~superglue_ros.frontends.base.FrontEnd`; upright, at one scale.

        Pixels that OpenCV cannot describe, as near the border, get zero descriptors.
        """
        height, width = image.shape
        if not len(keypoints):
            return Features.empty(width, height, self.detector, self.descriptor_dim)
        resized = resize(image, self._config.max_size)
        # OpenCV may drop or reorder keypoints: class_id carries the index through.
        given = [
            cv2.KeyPoint(float(x), float(y), self._diameter_px(), 0.0, 1.0, 0, i)
            for i, (x, y) in enumerate(resized.to_resized(keypoints))
        ]
        kept, computed = self._extractor.compute(resized.image, given)
        descriptors = np.zeros((len(keypoints), self.descriptor_dim), np.float32)
        if computed is not None:
            descriptors[[k.class_id for k in kept]] = self._converted(computed)
        scores = np.ones(len(keypoints), np.float32)
        return Features(
            keypoints=keypoints,
            scores=scores,
            width=width,
            height=height,
            detector=self.detector,
            descriptors=descriptors,
        )
