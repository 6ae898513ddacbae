"""The matcher for vismatch, called as its base class calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

FOLDER = Path(__file__).resolve().parents[2] / "examples/vismatch"


class BaseMatcher(torch.nn.Module):
    """What the matcher takes from vismatch's class of this name (1.4.0), where it is not there."""

    def __init__(self, device="cpu", **kwargs):
        super().__init__()
        self.device = device


@pytest.fixture
def matcher(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    try:
        import vismatch  # noqa: F401
    except ImportError:
        base = ModuleType("vismatch.base_matcher")
        base.BaseMatcher = BaseMatcher
        monkeypatch.setitem(sys.modules, "vismatch", ModuleType("vismatch"))
        monkeypatch.setitem(sys.modules, "vismatch.base_matcher", base)
    from superglue_ros_vismatch import SuperglueRosMatcher

    return SuperglueRosMatcher("cpu", 300, {"precision": "float32", "refinement": "none"})


def test_an_image_shifted_by_eight_pixels_is_matched(matcher):
    image = RoomSequence(frames=60, camera=built_in_camera(320, 240))[10].image
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)) / 255.0)
    rgb = rgb.float()
    matched0, matched1, all0, all1, described0, described1, confidences = matcher._forward(
        rgb[..., :-8], rgb[..., 8:]
    )
    assert len(all0) == len(described0) == 300
    assert len(all1) == len(described1) <= 300
    assert len(matched0) == len(matched1) == len(confidences) > 100
    assert np.median(np.abs(matched0 - matched1 - [8, 0])) < 0.1
    assert 0.2 <= confidences.min() <= confidences.max() <= 1
