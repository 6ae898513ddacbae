"""Whether a network answers at all: finite outputs that depend on what it is given.

The check of weights whose file has no checksum. It notices damage that destroys a network, not a
change that only makes it worse, and passes one that was never trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from superglue_ros.errors import WeightsError
from superglue_ros.networks.match_filter import MatchFilter
from superglue_ros.networks.places import PlaceAggregation
from superglue_ros.networks.refinement import PatchRegistration
from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.superpoint import CELL, SuperPoint

AnyNetwork = SuperPoint | SuperGlue | PatchRegistration | MatchFilter | PlaceAggregation

_SIDE = 8 * CELL
_KEYPOINTS = 16
_SMALLEST_SHARE = 1e-6
"""Of the largest output: what rounding alone may change."""


def check_response(network: AnyNetwork) -> None:
    """Run a network (on the CPU, in evaluation mode) on two fixed inputs of noise.

    Raises :class:`WeightsError` where an output is NaN or infinite, or is the same for both.
    """
    with torch.inference_mode():
        outputs = _outputs(network, torch.Generator().manual_seed(0))
    for name, (one, other) in outputs.items():
        largest = torch.maximum(one.abs().max(), other.abs().max())
        if not bool(torch.isfinite(largest)):  # the maximum of values with NaN is NaN
            raise WeightsError(f"{name} are NaN or infinite on a test input: fetch the file again")
        if (one - other).abs().max() <= _SMALLEST_SHARE * largest:
            raise WeightsError(f"{name} do not depend on the test input: fetch the file again")


def _outputs(network: AnyNetwork, noise: torch.Generator) -> dict[str, Tensor]:
    """By name, each with the answers to the two inputs along the first axis."""
    if isinstance(network, SuperPoint):
        logits, descriptors = network(torch.rand(2, 1, _SIDE, _SIDE, generator=noise))
        return {"detector's logits": logits, "descriptors": descriptors}
    if isinstance(network, SuperGlue):
        return {"assignments": _assignments(network, noise)}
    if isinstance(network, MatchFilter):
        return {"log odds": network(2 * torch.rand(2, _KEYPOINTS, 4, generator=noise) - 1)}
    if isinstance(network, PlaceAggregation):
        shape = (2, _KEYPOINTS, network.config.descriptor_dim)
        return {"places": network(F.normalize(torch.randn(shape, generator=noise), dim=2))}
    side = network.config.side
    first, second = 255 * torch.rand(2, 2, side, side, generator=noise)
    offset, factor = network(first, second)
    return {"offsets": offset, "covariances": factor}


def _assignments(network: SuperGlue, noise: torch.Generator) -> Tensor:
    """Inner parts (2, N, N) of the log assignments: equal keypoints, different descriptors."""
    shape = (2, _KEYPOINTS, network.config.descriptor_dim)
    first, second = (F.normalize(torch.randn(shape, generator=noise), dim=2) for _ in range(2))
    keypoints = (_SIDE * torch.rand(1, _KEYPOINTS, 2, generator=noise)).expand(2, -1, -1)
    scores = torch.rand(1, _KEYPOINTS, generator=noise).expand(2, -1)
    size = torch.full((2, 2), float(_SIDE))
    found: Tensor = network(keypoints, scores, first, size, keypoints, scores, second, size)
    return found[:, :-1, :-1]
