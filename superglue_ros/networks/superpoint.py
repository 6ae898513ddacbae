"""SuperPoint (DeTone et al., 2018): detect keypoints and describe them, or describe given pixels.

VGG encoder (8x downsampling), a 65-way detector head (64 pixels of a cell and "no keypoint") and a
descriptor head that is sampled bilinearly. Two published variants share this module:

- the original: convolution, ReLU (``batch_norm=False``);
- the open one: convolution, ReLU, batch norm (``batch_norm=True``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8


@dataclass(frozen=True)
class SuperPointConfig:
    """Architecture: what the shapes of a checkpoint's tensors do not show.

    ``exact_sampling`` places descriptors at cell centres, x_cell = (x - 3.5) / 8; the original
    release (and the checkpoints trained with it) stretches that by up to half a cell at the far
    image border, which parity with it needs.

    ``context``: weight of the descriptors of the image at half its size, in which the same network
    sees twice as far around; those of the image have 1, and 0 is without. On facades and streets
    what is near a point repeats, what is around it does not. Not part of the paper; costs a quarter
    more. With 1 matchers take a keypoint some pixels beside the right one more often.
    """

    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_dim: int = 256
    batch_norm: bool = True
    exact_sampling: bool = True
    context: float = 0.0


class _ConvBlock(nn.Sequential):
    """Convolution, then optionally ReLU, then optionally batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, relu: bool, batch_norm: bool) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2))
        if relu:
            self.add_module("relu", nn.ReLU(inplace=True))
        if batch_norm:
            self.add_module("bn", nn.BatchNorm2d(c_out, eps=1e-3))


class SuperPoint(nn.Module):
    """The network; ``detect`` and ``describe`` turn its maps into features."""

    def __init__(self, config: SuperPointConfig = SuperPointConfig()) -> None:
        super().__init__()
        self.config = config
        bn = config.batch_norm
        blocks: list[nn.Module] = []
        c_in = 1
        for i, c in enumerate(config.channels):
            block: list[nn.Module] = [
                _ConvBlock(c_in, c, 3, True, bn),
                _ConvBlock(c, c, 3, True, bn),
            ]
            if i + 1 < len(config.channels):
                block.append(nn.MaxPool2d(2, 2))
            blocks.append(nn.Sequential(*block))
            c_in = c
        head = config.head_channels
        self.backbone = nn.Sequential(*blocks)
        self.detector = nn.Sequential(
            _ConvBlock(c_in, head, 3, True, bn), _ConvBlock(head, CELL**2 + 1, 1, False, bn)
        )
        self.descriptor = nn.Sequential(
            _ConvBlock(c_in, head, 3, True, bn),
            _ConvBlock(head, config.descriptor_dim, 1, False, bn),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Dense maps of grey images.

        ``images`` (B, 1, H, W) in [0, 1], H and W multiples of 8. Returns the detector's logits
        (B, 65, H/8, W/8) and the descriptors (B, D, H/8, W/8), unit length along D.
        """
        features = self.backbone(images)
        return self.detector(features), self.describe(images, features)

    def describe(self, images: Tensor, features: Tensor) -> Tensor:
        """Unit-length descriptors (B, D, H/8, W/8) of images whose backbone's answer is known.

        At least float32, also where the network runs in less.
        """
        own = unit_length(self.descriptor(features))
        if not self.config.context:
            return own
        around = unit_length(self.descriptor(self.backbone(half_size(images))))
        return add_context(own, around, self.config.context)


def unit_length(maps: Tensor) -> Tensor:
    """Descriptors (B, D, h, w) of length 1 along D, at least float32."""
    return F.normalize(maps.to(torch.promote_types(maps.dtype, torch.float32)), dim=1)


def half_size(images: Tensor) -> Tensor:
    """Images (B, 1, 8h, 8w) at half their size, with half a cell repeated below and on the right.

    So the backbone makes maps of (h + 1) // 2 rows and (w + 1) // 2 columns of them, whatever h
    and w are.
    """
    return F.pad(F.avg_pool2d(images, 2), (0, CELL // 2, 0, CELL // 2), mode="replicate")


def add_context(own: Tensor, around: Tensor, weight: float) -> Tensor:
    """Unit-length sum of descriptors (B, D, h, w) and those at :func:`half_size`, weighted."""
    height, width = own.shape[2:]
    around = F.interpolate(around, scale_factor=2, mode="bilinear", align_corners=False)
    return F.normalize(own + weight * around[:, :, :height, :width], dim=1)


def keypoint_probability(logits: Tensor) -> Tensor:
    """Detector logits (B, 65, h, w) to the probability of a keypoint per pixel (B, 8h, 8w)."""
    return F.pixel_shuffle(logits.softmax(dim=1)[:, :-1], CELL).squeeze(1)


def non_maximum_suppression(scores: Tensor, radius: int) -> Tensor:
    """Zero every score (B, H, W) that is not the maximum of its (2 radius + 1) square.

    Maxima suppressed only by pixels that are themselves suppressed are restored, in two rounds.
    """
    zeros = torch.zeros_like(scores)
    is_max = scores == _window_maximum(scores, radius)
    for _ in range(2):
        near_max = _window_maximum(is_max.to(scores.dtype), radius) > 0
        rest = torch.where(near_max, zeros, scores)
        is_max = is_max | ((rest == _window_maximum(rest, radius)) & ~near_max)
    return torch.where(is_max, scores, zeros)


def _window_maximum(x: Tensor, radius: int) -> Tensor:
    """Maximum of the (2 radius + 1) square around every pixel of (B, H, W)."""
    size = 2 * radius + 1
    if x.is_cuda:
        return F.max_pool2d(x, kernel_size=size, stride=1, padding=radius)
    # torch compares all pixels of the square on a CPU; doubling a window along each axis needs
    # 2 log2(size) comparisons instead of size^2.
    for axis in (1, 2):
        x = F.pad(x, (0, 0, radius, radius) if axis == 1 else (radius, radius), value=-torch.inf)
        width = 1
        while width < size:
            step = min(width, size - width)
            kept = x.shape[axis] - step
            x = torch.maximum(x.narrow(axis, 0, kept), x.narrow(axis, step, kept))
            width += step
    return x


def select_keypoints(
    scores: Tensor, max_keypoints: int, threshold: float, border: int
) -> tuple[Tensor, Tensor]:
    """The best pixels of one score map (H, W) after suppression, by falling score.

    Returns pixels (N, 2) as (x, y) and scores (N,), N <= max_keypoints, all above ``threshold`` and
    at least ``border`` pixels from the image's edge.
    """
    height, width = scores.shape
    inner = scores[border : height - border, border : width - border]
    candidates = (inner > threshold).nonzero()
    values = inner[candidates[:, 0], candidates[:, 1]]
    if len(values) > max_keypoints:
        values, best = values.topk(max_keypoints)
        candidates = candidates[best]
    else:
        values, order = values.sort(descending=True, stable=True)
        candidates = candidates[order]
    return candidates.flip(1).to(scores.dtype) + border, values


def best_pixels(
    scores: Tensor, max_keypoints: int, threshold: float, border: int
) -> tuple[Tensor, Tensor]:
    """As :func:`select_keypoints`, for a batch (B, H, W) and with a result of fixed shape.

    Pixels (B, K, 2) and scores (B, K), K = ``max_keypoints`` or all pixels where they are fewer; a
    score of 0 says that there is no keypoint, its pixel is (0, 0). Nothing waits for the device.
    """
    height, width = scores.shape[1:]
    inner = scores[:, border : height - border, border : width - border]
    columns = inner.shape[2]
    candidates = torch.where(inner > threshold, inner, 0.0).flatten(1)
    values, places = candidates.topk(min(max_keypoints, candidates.shape[1]))
    pixels = torch.stack([places % max(columns, 1), places // max(columns, 1)], dim=2) + border
    return torch.where(values.unsqueeze(2) > 0, pixels, 0).to(scores.dtype), values


def detect_keypoints(
    probability: Tensor, max_keypoints: int, threshold: float, nms_radius: int, border: int
) -> list[tuple[Tensor, Tensor]]:
    """From the probability of every pixel (B, H, W) to the best keypoints of each image.

    Non-maximum suppression (none with radius 0), then :func:`select_keypoints`.
    """
    heat = non_maximum_suppression(probability, nms_radius) if nms_radius else probability
    return [select_keypoints(one, max_keypoints, threshold, border) for one in heat]


def refine_keypoints(scores: Tensor, keypoints: Tensor, radius: int = 2) -> Tensor:
    """Sub-pixel positions: centres of mass of the scores around whole pixels.

    ``scores`` (H, W) before suppression, not negative; ``keypoints`` (N, 2) whole pixels (x, y);
    the square of 2 ``radius`` + 1 pixels around each counts. The detector spreads its probability
    over the pixels near a corner; the centre of mass is more exact than the maximum.
    """
    padded = F.pad(scores, (radius, radius, radius, radius))
    offsets = torch.arange(-radius, radius + 1, device=scores.device)
    x, y = (keypoints.long() + radius).unbind(dim=1)
    mass = padded[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets]
    total = mass.sum(dim=(1, 2)).clamp(min=torch.finfo(scores.dtype).tiny)
    shift_x = (mass.sum(dim=1) * offsets).sum(dim=1) / total
    shift_y = (mass.sum(dim=2) * offsets).sum(dim=1) / total
    return keypoints + torch.stack([shift_x, shift_y], dim=1)


def sample_descriptors(keypoints: Tensor, descriptors: Tensor, exact: bool = True) -> Tensor:
    """Bilinear descriptors at pixels, unit length.

    ``keypoints`` (B, N, 2) pixels (x, y); ``descriptors`` (B, D, h, w), one per 8x8 cell. Returns
    (B, N, D). ``exact``: see :class:`SuperPointConfig`.
    """
    h, w = descriptors.shape[2:]
    # By numbers, not by a tensor of them: that would be copied to the device.
    sides = zip(keypoints.unbind(2), (CELL * w, CELL * h), strict=True)
    if exact:
        grid = [(x + 0.5) / side * 2 - 1 for x, side in sides]
    else:
        grid = [(x - CELL / 2 + 0.5) / (side - CELL / 2 - 0.5) * 2 - 1 for x, side in sides]
    sampled = F.grid_sample(
        descriptors,
        torch.stack(grid, dim=2).unsqueeze(1).to(descriptors.dtype),
        mode="bilinear",
        padding_mode="border" if exact else "zeros",
        align_corners=not exact,
    )
    return F.normalize(sampled.squeeze(2), dim=1).transpose(1, 2)
