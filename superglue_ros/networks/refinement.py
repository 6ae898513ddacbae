"""A small network that registers pairs of patches: offset and covariance of each.

Both patches go through the same bank of pairs of linear filters. Such a pair is one complex filter,
as a Gabor filter is; its answers to a patch and to the patch moved differ by a phase, which is
proportional to the move. The phase differences of all pairs, and how strongly each answered, go
into a perceptron. No image is compared at every possible move, which keeps it fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from superglue_ros.errors import ConfigError

# Standard deviations in pixels that the network can state.
_LEAST_SIGMA, _MOST_SIGMA = 0.02, 5.0
# Grey levels of contrast below which noise is not amplified to that of a structured patch.
_LEAST_CONTRAST = 4.0


@dataclass(frozen=True)
class PatchRegistrationConfig:
    """Architecture: patches of ``side`` x ``side`` pixels (odd), ``filters`` pairs, widths of the
    ``hidden`` layers. Raises :class:`ConfigError` on a side without a centre pixel.
    """

    side: int = 13
    filters: int = 64
    hidden: tuple[int, ...] = (128, 64)

    def __post_init__(self) -> None:
        if self.side < 5 or self.side % 2 == 0:
            raise ConfigError(f"patches have an odd side of at least 5 pixels, not {self.side}")


class Registration(NamedTuple):
    """Offsets (K, 2) of what the first patch shows in its centre from the centre of the second, and
    lower triangles (K, 2, 2) whose product with their transpose is the offsets' covariance.
    """

    offset: Tensor
    factor: Tensor

    @property
    def covariance(self) -> Tensor:
        """Covariance (K, 2, 2) [px^2]."""
        return self.factor @ self.factor.mT

    def negative_log_likelihood(self, truth: Tensor) -> Tensor:
        """Of the true offsets (K, 2), one value each (K,), without the constant."""
        error = (truth - self.offset).unsqueeze(2)
        whitened = torch.linalg.solve_triangular(self.factor, error, upper=False).squeeze(2)
        spread = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return whitened.square().sum(1) / 2 + spread


class PatchRegistration(nn.Module):
    """Registers pairs of patches; see the module."""

    def __init__(self, config: PatchRegistrationConfig | None = None) -> None:
        super().__init__()
        self.config = config or PatchRegistrationConfig()
        filters, pixels = self.config.filters, self.config.side**2
        self.bank = nn.Linear(pixels, 2 * filters, bias=False)
        with torch.no_grad():
            self.bank.weight.copy_(_gabor_bank(self.config.side, filters))
        widths = (4 * filters, *self.config.hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 5))

    def forward(self, first: Tensor, second: Tensor) -> Registration:
        """Register patches (K, side, side) of grey levels 0 to 255, ``second`` to ``first``."""
        real, imaginary = self._answers(torch.cat([first, second]).flatten(1)).chunk(2, dim=1)
        power = torch.addcmul(real * real + 0.1, imaginary, imaginary)
        (real, to_real), (imaginary, to_imaginary), (power, to_power) = (
            parts.chunk(2) for parts in (real, imaginary, power)
        )
        norm = (power * to_power).rsqrt()
        cosine = (real * to_real + imaginary * to_imaginary) * norm
        sine = (real * to_imaginary - imaginary * to_real) * norm
        strengths = [power.log() / 2, to_power.log() / 2]
        out = self.layers(torch.cat([cosine, sine, *strengths], dim=1))
        scale = out[:, 2:4].exp().clamp(_LEAST_SIGMA, _MOST_SIGMA)
        zero = torch.zeros_like(scale[:, 0])
        rows = [torch.stack([scale[:, 0], zero], 1), torch.stack([out[:, 4], scale[:, 1]], 1)]
        return Registration(out[:, :2], torch.stack(rows, 1))

    def _answers(self, patches: Tensor) -> Tensor:
        """Of the bank's filters to patches (K, pixels) brought to zero mean and unit contrast.

        The same by taking the mean from the filters and the contrast from their answers, which are
        fewer numbers.
        """
        mean = patches.mean(1, keepdim=True)
        variance = patches.square().mean(1, keepdim=True) - mean.square()
        filters = self.bank.weight - self.bank.weight.mean(1, keepdim=True)
        contrast = (variance.clamp(min=0) + _LEAST_CONTRAST**2).rsqrt()
        return F.linear(patches, filters) * contrast


def _gabor_bank(side: int, filters: int) -> Tensor:
    """Even and odd Gabor filters (2 filters, side^2) of random wave, width and place, unit norm."""
    axis = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x, y = x.flatten()[None], y.flatten()[None]
    angle = torch.rand(filters, 1) * torch.pi
    length = torch.exp(torch.empty(filters, 1).uniform_(1.1, 2.9))  # 3 to 18 px
    width = (0.35 * length).clamp(1.5, side / 3)
    centre = torch.randn(2, filters, 1) * side / 8
    along = (x - centre[0]) * angle.cos() + (y - centre[1]) * angle.sin()
    envelope = torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    phase = 2 * torch.pi * along / length
    bank = torch.cat([envelope * phase.cos(), envelope * phase.sin()])
    bank = bank - bank.mean(1, keepdim=True)
    return bank / bank.norm(dim=1, keepdim=True)
