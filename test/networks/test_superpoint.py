"""Descriptors with context: where they lie, and that they tell apart what only surroundings do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.networks.superpoint import (
    SuperPoint,
    SuperPointConfig,
    add_context,
    half_size,
    sample_descriptors,
    unit_length,
)
from superglue_ros.networks.weights import load_superpoint

TINY = SuperPointConfig((4, 6, 8, 8), 12, 16)


def smooth(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Maps (1, 3, h, w) that vary slowly, at full-size pixels ``x`` (w,) and ``y`` (h,)."""
    v, u = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([torch.ones_like(u), 0.004 * u, 0.003 * v])[None]


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize(("rows", "columns"), [(12, 10), (11, 13)])
def test_the_surroundings_are_added_at_their_own_place(rows, columns, weight):
    own = unit_length(smooth(8 * torch.arange(columns) + 3.5, 8 * torch.arange(rows) + 3.5))
    wide, high = (columns + 1) // 2, (rows + 1) // 2
    # A cell of the half-size image has its centre at 8 i + 3.5 there, at 16 i + 7.5 here.
    around = unit_length(smooth(16 * torch.arange(wide) + 7.5, 16 * torch.arange(high) + 7.5))
    both = add_context(own, around, weight)
    assert both.shape == own.shape
    inner = (both - own)[:, :, 1:-2, 1:-2]
    assert inner.abs().max() < 1e-4  # a cell further it would be 0.03


@pytest.mark.parametrize("size", [(96, 80), (88, 104), (8, 8)])
def test_half_size_has_a_cell_for_every_two(size):
    network = SuperPoint(TINY).eval()
    with torch.inference_mode():
        features = network.backbone(half_size(torch.rand(1, 1, *size)))
    assert features.shape[2:] == ((size[0] // 8 + 1) // 2, (size[1] // 8 + 1) // 2)


def test_half_size_repeats_the_last_pixels():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    half = half_size(image)
    assert half.shape == (1, 1, 8, 8)
    assert half[0, 0, 0, 0] == pytest.approx(np.mean([0, 1, 8, 9]))
    assert torch.equal(half[0, 0, 4:, 4:], half[0, 0, 3, 3].expand(4, 4))


def test_context_tells_apart_what_looks_the_same_nearby():
    torch.manual_seed(0)
    network = load_superpoint().network
    # The same patch of 96 x 96 pixels, twice, all that the network sees of a point; what is
    # beyond it differs.
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 260, 516), 5, 1)
    image[..., 80:176, 80:176] = image[..., 80:176, 336:432]
    points = torch.tensor([[[127.5, 127.5], [383.5, 127.5]]])
    similarity = {}
    for context in (0.0, 0.5, 1.0):
        network.config = replace(network.config, context=context)
        with torch.inference_mode():
            _, maps = network(image)
        assert (maps.norm(dim=1) - 1).abs().max() < 1e-5
        a, b = sample_descriptors(points, maps)[0]
        similarity[context] = float(a @ b)
    assert similarity[0.0] == pytest.approx(1.0, abs=1e-6)
    assert similarity[1.0] < 0.99
    assert similarity[1.0] < similarity[0.5] < 0.995
