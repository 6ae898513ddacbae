"""Attention in training on a CPU takes a way of its own in bfloat16, to the same end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from superglue_ros.networks.attention import attend


@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_training_attends_as_float32_does(masked):
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 2, 40, 16, generator=generator) for _ in range(3)]
    weight = torch.randn(2, 2, 40, 16, generator=generator)
    mask = torch.arange(40).expand(2, 1, 1, 40) < 30 if masked else None
    q, k, v = (x.clone().requires_grad_(True) for x in exact)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    (expected * weight).sum().backward()
    low = [x.bfloat16().requires_grad_(True) for x in exact]
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*low, mask)
    assert found.dtype == torch.bfloat16
    (found.float() * weight).sum().backward()
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    for a, b in zip(low, (q, k, v), strict=True):
        torch.testing.assert_close(a.grad.float(), b.grad, atol=0.05, rtol=0.05)
    if masked:
        assert not low[1].grad[:, :, 30:].any()
