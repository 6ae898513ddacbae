import numpy as np
import torch
import torch.nn.functional as F

from superglue_ros.training.data.device_photometric import distort
from superglue_ros.training.data.photograph_pairs import HomographyRanges, PhotographPairs


def photograph() -> torch.Tensor:
    """Smooth, so that sampling it hardly matters."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(30, 220, (1, 1, 9, 12))).float()
    large = F.interpolate(coarse, (600, 800), mode="bicubic", align_corners=False)
    return large[0, 0].clamp(0, 255).to(torch.uint8)


def drawn(seed: int = 0):
    pairs = PhotographPairs([photograph()], torch.device("cpu"))
    return pairs.draw(
        4, 96, 72, torch.Generator().manual_seed(seed), HomographyRanges(rotation_deg=30)
    )


def test_corresponding_pixels_look_alike():
    images, geometry = drawn()
    assert images.shape == (2, 4, 72, 96)
    grid = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(72.0), indexing="xy"), -1)
    there, visible = geometry.warp(grid.flatten(0, 1).expand(4, -1, -1), 0)
    size = torch.tensor([96.0, 72.0])
    seen = F.grid_sample(
        images[1][:, None], ((there + 0.5) / size * 2 - 1)[:, None], align_corners=False
    )[:, 0, 0]
    difference = (seen - images[0].flatten(1)).abs()[visible]
    assert visible.float().mean() > 0.2
    assert difference.mean() < 0.004  # grey levels of 255: one


def test_a_seed_gives_the_same_pairs_and_another_others():
    (one, _), (same, _), (other, _) = drawn(), drawn(), drawn(1)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_photometric_changes_keep_the_picture_and_its_range():
    images, _ = drawn()
    flat = images.flatten(0, 1)
    changed = distort(flat, torch.Generator().manual_seed(3), 1.0)
    assert changed.shape == flat.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - flat).abs().mean() > 0.01
    for before, after in zip(flat, changed, strict=True):
        both = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))
        assert both[0, 1] > 0.6


def test_without_changes_only_a_trace_of_noise_is_left():
    images, _ = drawn()
    flat = images.flatten(0, 1)
    changed = distort(flat, torch.Generator().manual_seed(3), 0.0)
    assert (changed - flat).abs().mean() < 0.006
