"""The Triton kernel gives the log domain's assignment; without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

COMPARISON = """
import torch
from superglue_ros.engines import fused_sinkhorn as module
from superglue_ros.engines.fused_sinkhorn import fused_sinkhorn, works_on
from superglue_ros.networks.sinkhorn import log_sinkhorn

device = torch.device("{device}")
assert device.type == "cpu" or works_on(device)
module.BLOCK = {block}  # rows take several
for scale, m, n, dustbin in ((1, 7, 5, 1.0), (100, 6, {most}, -3.0), (10, 1, 1, (2.0, 1.0))):
    torch.manual_seed(0)
    scores = scale * torch.randn(2, m, n)
    counts = torch.tensor([[m], [max(1, m - 2)]])
    masks = torch.arange(m) < counts, torch.ones(2, n, dtype=torch.bool)
    dustbin = torch.tensor(dustbin)
    expected = log_sinkhorn(scores.double(), dustbin, 3, *masks)
    given = (x.to(device) for x in masks)
    found = fused_sinkhorn(scores.to(device), dustbin.to(device), 3, *given)
    torch.testing.assert_close(found.double().cpu(), expected, atol=1e-4, rtol=0)
"""


def run(device: str, block: int, most: int, **environment: str) -> None:
    code = COMPARISON.format(device=device, block=block, most=most)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_interpreted_it_gives_the_assignment_of_the_log_domain():
    run("cpu", 8, 19, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_compiled_it_gives_the_assignment_of_the_log_domain():
    run("cuda", 1024, 2500)
