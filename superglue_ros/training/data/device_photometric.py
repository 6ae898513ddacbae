"""Photometric changes of a batch of grey images on the device: another camera, exposure, light."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLUR_RADIUS = 4


def distort(images: Tensor, generator: torch.Generator, probability: float = 0.6) -> Tensor:
    """One random change for each image of (B, H, W), float in [0, 1]; the same shape back.

    In the order of a camera: shadow, motion or defocus blur, exposure, contrast and gamma, noise
    that grows in the dark. Each is applied with ``probability``.
    """
    count, height, width = images.shape
    device = images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(
            count, *(shape or (1, 1)), device=device, generator=generator
        )

    def applied(share: float = 1.0) -> Tensor:
        return uniform(0, 1) < probability * share

    shadow = F.interpolate(
        uniform(0, 1, 4, 5).unsqueeze(1), (height, width), mode="bicubic", align_corners=False
    ).squeeze(1)
    depth = torch.where(applied(), uniform(0, 0.6), uniform(0, 0))
    x = images * (1 - depth * shadow.clamp(0, 1))
    x = _blur(x, torch.where(applied(), uniform(0.1, 1.3), uniform(0.05, 0.1)), applied(0.35),
              uniform(0, torch.pi), uniform(0.5, 2.2))  # fmt: skip
    x = x.clamp(0, 1) ** torch.where(applied(), uniform(-0.5, 0.5).exp(), uniform(1, 1))
    mean = x.mean(dim=(1, 2), keepdim=True)
    x = mean + (x - mean) * torch.where(applied(), uniform(0.5, 1.4), uniform(1, 1))
    x = x + torch.where(applied(), uniform(-0.18, 0.18), uniform(0, 0))
    sigma = torch.where(applied(), uniform(0.0, 0.035), uniform(0, 0.004))
    noise = torch.randn(images.shape, device=device, generator=generator)
    x = x + noise * sigma * (1.3 - 0.6 * x.clamp(0, 1))
    return (x.clamp(0, 1) * 255).round() / 255


def _blur(x: Tensor, sigma: Tensor, moving: Tensor, angle: Tensor, length: Tensor) -> Tensor:
    """A Gaussian of ``sigma`` [px] for each image, drawn out along ``angle`` where ``moving``."""
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=x.device, dtype=x.dtype)
    u, v = offsets[None, :], offsets[:, None]
    along, across = u * angle.cos() + v * angle.sin(), v * angle.cos() - u * angle.sin()
    wide = torch.where(moving, length, sigma)
    kernel = (-0.5 * ((along / wide) ** 2 + (across / sigma) ** 2)).exp()
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    padded = F.pad(x.unsqueeze(0), (_BLUR_RADIUS,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.unsqueeze(1), groups=len(x)).squeeze(0)
