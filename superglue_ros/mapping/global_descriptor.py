"""A global image descriptor pooled from local ones, for place recognition.

Two ways: :func:`learned`, the aggregation of :mod:`superglue_ros.networks.places`, for the
descriptors that its weights were trained on; :func:`vlad` for those of every other front-end.
:class:`Pooling` chooses. docs/slam.md has the comparison.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from superglue_ros.errors import DescriptorKindError
from superglue_ros.networks.places import PlaceAggregation
from superglue_ros.networks.weights import LoadedPlaces, load_places
from superglue_ros.types import Features, FloatArray

ANCHORS = 32
SHARPNESS = 20.0  # inverse temperature of the soft assignment to anchors


class Pooling:
    """Makes global descriptors in the way that the setting ``place_weights`` names.

    ``auto``: :func:`learned` with the packaged weights for the descriptors that these are for,
    :func:`vlad` for all others. A file of ``superglue-ros train places``: :func:`learned` with
    those, and other descriptors are refused. Raises :class:`WeightsError` on a bad file.
    """

    def __init__(self, weights: str = "auto") -> None:
        self._file = "" if weights == "auto" else weights
        self.places = load_places(self._file) if self._file else _packaged()

    def check_kind(self, kind: str) -> None:
        """Raises :class:`DescriptorKindError` on descriptors that the file is not made for."""
        if self._file and kind != self.places.descriptor_kind:
            raise DescriptorKindError(
                f"descriptors are {kind!r} but the weights in {self._file} were made for "
                f"{self.places.descriptor_kind!r}: use that front-end, or set place_weights to "
                f"weights trained on these descriptors, or to auto"
            )

    def __call__(self, features: Features) -> FloatArray | None:
        """Global descriptor (G,) float32 of unit length; their dot product is the similarity.

        G is that of the aggregation, or 32 D. None where there are no descriptors, or fewer than
        two keypoints. Raises as :meth:`check_kind`.
        """
        if features.descriptors is None or len(features) < 2:
            return None
        self.check_kind(features.detector)
        if features.detector == self.places.descriptor_kind:
            return learned(features.descriptors, self.places.network)
        return vlad(features.descriptors)


@torch.inference_mode()
def learned(descriptors: FloatArray, network: PlaceAggregation) -> FloatArray:
    """What ``network`` makes of local descriptors (N, D): unit length, float32."""
    return network(torch.from_numpy(np.asarray(descriptors, np.float32))[None])[0].numpy()


def vlad(descriptors: FloatArray) -> FloatArray:
    """VLAD (32 D,) float32 of local descriptors (N, D): unit length.

    Jegou et al., CVPR 2010, with soft assignment (Arandjelovic et al., NetVLAD, CVPR 2016), but
    with fixed random anchors in place of a learned vocabulary: nothing to train, any descriptor
    size. Descriptors are first centred on their mean over the image, which removes the component
    that all descriptors of a network share.
    """
    centred = descriptors - descriptors.mean(axis=0)
    closeness = SHARPNESS * _unit(centred) @ _anchors(descriptors.shape[1]).T
    weights = np.exp(closeness - closeness.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    residuals = _unit(weights.T @ centred)  # intra-normalisation: no anchor outweighs the others
    return np.ascontiguousarray(_unit(residuals.ravel()), np.float32)


@lru_cache(maxsize=1)
def _packaged() -> LoadedPlaces:
    return load_places()


@lru_cache(maxsize=4)
def _anchors(dim: int) -> FloatArray:
    """Directions (32, D), the same in every process: descriptors of other robots are compared."""
    rng = np.random.Generator(np.random.PCG64(0))
    return _unit(rng.uniform(-1, 1, (ANCHORS, dim)).astype(np.float32))


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
