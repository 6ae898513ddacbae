"""Sets of nodes of the multiplex graph, as messages between them need them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes of 2P images, the P images A before the P images B.

    ``x`` (2P, N, D) representations; ``xy`` (2P, N, 2) normalised positions, None where no option
    reads them; ``mask`` (2P, N) True = a node, None = no padding.
    """

    x: Tensor
    xy: Tensor | None = None
    mask: Tensor | None = None

    def swapped(self) -> Nodes:
        """The nodes of the other image of every pair."""
        return Nodes(swap(self.x), _swap_or_none(self.xy), _swap_or_none(self.mask))


def swap(x: Tensor) -> Tensor:
    """Exchange the images A and B of every pair: (2P, ...) to (2P, ...)."""
    a, b = x.chunk(2)
    return torch.cat([b, a])


def _swap_or_none(x: Tensor | None) -> Tensor | None:
    return None if x is None else swap(x)
