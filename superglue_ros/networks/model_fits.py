"""Fundamental matrices and homographies from weighted matches, and how far matches are from them.

Differentiable in the weights, which is how learned filters are trained by the model that their
weights give (Yi et al., CVPR 2018). Matches are (P, N, 4), x y of image 0 and of image 1, of the
order of one; the fits run in float64, since their null vectors are ill-conditioned.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_fundamental(matches: Tensor, weights: Tensor) -> Tensor:
    """``F`` (P, 3, 3), float64, unit norm: x1' F x0 = 0 in the weighted least squares.

    The eight-point algorithm without its projection to rank two. ``weights`` (P, N), not negative.
    """
    x0, y0, x1, y1 = matches.double().unbind(-1)
    one = torch.ones_like(x0)
    rows = torch.stack([x1 * x0, x1 * y0, x1, y1 * x0, y1 * y0, y1, x0, y0, one], -1)
    return _null_vector(rows, weights).unflatten(-1, (3, 3))


def weighted_homography(matches: Tensor, weights: Tensor) -> Tensor:
    """``H`` (P, 3, 3), float64, unit norm: x1 ~ H x0 in the weighted least squares (DLT)."""
    x0, y0, x1, y1 = matches.double().unbind(-1)
    one, zero = torch.ones_like(x0), torch.zeros_like(x0)
    first = torch.stack([x0, y0, one, zero, zero, zero, -x1 * x0, -x1 * y0, -x1], -1)
    second = torch.stack([zero, zero, zero, x0, y0, one, -y1 * x0, -y1 * y0, -y1], -1)
    rows = torch.cat([first, second], 1)
    return _null_vector(rows, torch.cat([weights, weights], 1)).unflatten(-1, (3, 3))


def epipolar_distance(matches: Tensor, fundamental: Tensor) -> Tensor:
    """Root of the summed squared distances (P, N) of both points to their epipolar lines."""
    p0, p1 = _homogeneous(matches.double())
    line1, line0 = p0 @ fundamental.mT, p1 @ fundamental
    off = (p1 * line1).sum(-1).square()
    least = 1e-12  # squared, of a line at infinity
    scale = sum(1 / (line[..., :2].square().sum(-1) + least) for line in (line0, line1))
    return (off * scale + least).sqrt()


def transfer_distance(matches: Tensor, homography: Tensor) -> Tensor:
    """Distance (P, N) in image 1 of the points of image 0 under the homography."""
    p0, p1 = _homogeneous(matches.double())
    there = p0 @ homography.mT
    depth = there[..., 2:]
    safe = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    return ((there[..., :2] / safe - p1[..., :2]).square().sum(-1) + 1e-12).sqrt()


def _homogeneous(matches: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(matches[..., :1])
    return torch.cat([matches[..., :2], one], -1), torch.cat([matches[..., 2:], one], -1)


def _null_vector(rows: Tensor, weights: Tensor) -> Tensor:
    """The unit vectors (P, 9) that ``weights`` (P, K) times ``rows`` (P, K, 9) map nearest to 0."""
    system = rows.mT @ (weights.double().unsqueeze(-1) * rows)
    # The scale does not matter, but eigenvalues of different size keep the gradient finite.
    system = system / (system.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + 1e-12)
    spread = torch.arange(9, dtype=system.dtype, device=system.device) * 1e-12
    vectors: Tensor = torch.linalg.eigh(system + torch.diag(spread)).eigenvectors
    return vectors[..., 0]
