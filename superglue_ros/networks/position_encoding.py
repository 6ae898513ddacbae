"""What the keypoint encoder reads of a keypoint (eq. 2): its place in the image, its confidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXTENT = 0.7
"""Part of the image's larger side that is a unit of normalised positions."""


def normalise_keypoints(keypoints: Tensor, size: Tensor) -> Tensor:
    """Pixels (B, N, 2) centred on the image and divided by 0.7 times its larger side.

    The paper divides by the largest dimension (appendix E); the factor 0.7 is that of the published
    checkpoints. ``size`` (B, 2): width, height.
    """
    size = size.to(keypoints.dtype)
    scale = EXTENT * size.amax(dim=1, keepdim=True)
    return (keypoints - size.unsqueeze(1) / 2) / scale.unsqueeze(1)


def encoder_inputs(sinusoids: int) -> int:
    """Channels of :func:`position_features`."""
    return (4 * sinusoids or 2) + 1


def position_features(positions: Tensor, scores: Tensor, sinusoids: int) -> Tensor:
    """What the encoder's MLP reads: (B, N, 3), or (B, N, 4 F + 1) with F sinusoids.

    ``positions`` (B, N, 2) normalised, ``scores`` (B, N). With sinusoids (technical report; Vaswani
    et al., 2017), coordinate x becomes sin(2^k pi x), cos(2^k pi x) for k = 0 to F - 1.
    """
    if sinusoids:
        frequency = math.pi * 2 ** torch.arange(sinusoids, device=positions.device)
        phase = (positions.unsqueeze(-1) * frequency.to(positions.dtype)).flatten(-2)
        positions = torch.cat([phase.sin(), phase.cos()], dim=-1)
    return torch.cat([positions, scores.unsqueeze(-1)], dim=-1)
