import numpy as np
import pytest
import torch

from superglue_ros.training.data.pair_geometry import Homographies, PosedDepth

WIDTH, HEIGHT, FOCAL = 64, 48, 50.0
K = torch.tensor([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1.0]])


def points(*values: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([values])


def test_a_homography_and_back():
    h = torch.tensor([[[1.1, 0.1, 3.0], [-0.1, 0.9, 5.0], [1e-4, 2e-4, 1.0]]])
    geometry = Homographies(h, (WIDTH, HEIGHT))
    there, visible = geometry.warp(points((10.25, 20.5), (63.0, 1.0)), 0)
    expected = h[0].numpy() @ [10.25, 20.5, 1.0]
    np.testing.assert_allclose(there[0, 0], expected[:2] / expected[2], rtol=1e-6)
    assert visible.tolist() == [[True, False]]  # 72 is right of the image
    back, _ = geometry.warp(there, 1)
    np.testing.assert_allclose(back[0, 0], [10.25, 20.5], atol=1e-4)


def slanted(shift: float) -> torch.Tensor:
    """1 / depth of the plane z = 4 + x / 2 seen from a camera moved by ``shift`` along x."""
    u = (torch.arange(WIDTH) - (WIDTH - 1) / 2) / FOCAL
    depth = (4 + shift / 2) / (1 - u / 2)
    return (1 / depth).expand(HEIGHT, WIDTH)


def moved(shift: float) -> torch.Tensor:
    transform = torch.eye(4)[None].clone()
    transform[0, 0, 3] = -shift
    return transform


def test_depth_is_exact_between_pixels_of_a_slanted_plane():
    shift = 0.3
    inverse = torch.stack([slanted(0.0), slanted(shift)])[:, None]
    geometry = PosedDepth(inverse, K.expand(2, 1, 3, 3), moved(shift))
    start = points((30.3, 20.7))
    there, visible = geometry.warp(start, 0)
    u = (30.3 - (WIDTH - 1) / 2) / FOCAL
    x, z = 4 * u / (1 - u / 2), 4 / (1 - u / 2)
    assert there[0, 0, 0].item() == pytest.approx(
        (x - shift) / z * FOCAL + (WIDTH - 1) / 2, abs=1e-4
    )
    assert there[0, 0, 1].item() == pytest.approx(20.7, abs=1e-4)
    assert visible.all()
    back, _ = geometry.warp(there, 1)
    torch.testing.assert_close(back, start, atol=1e-3, rtol=0)


def test_hidden_missing_and_torn_places_are_not_visible():
    first = torch.full((HEIGHT, WIDTH), 0.25)
    first[:, 40:] = 0.0  # no depth
    first[:, 10] = 1.0  # a pole: neighbours are another surface
    second = torch.full((HEIGHT, WIDTH), 0.25)
    second[:, 20:25] = 1.0  # something stands before the wall
    geometry = PosedDepth(
        torch.stack([first, second])[:, None], K.expand(2, 1, 3, 3), torch.eye(4)[None]
    )
    _, visible = geometry.warp(points((30.0, 9.0), (22.0, 9.0), (45.0, 9.0), (9.5, 9.0)), 0)
    assert visible.tolist() == [[True, False, False, False]]


def test_the_gradient_reaches_the_point():
    inverse = torch.stack([slanted(0.0), slanted(0.3)])[:, None]
    geometry = PosedDepth(inverse, K.expand(2, 1, 3, 3), moved(0.3))
    start = points((30.3, 20.7)).requires_grad_()
    there, _ = geometry.warp(start, 0)
    there[0, 0, 0].backward()
    assert start.grad[0, 0, 0].item() == pytest.approx(1 + 0.3 / 8, rel=1e-3)
