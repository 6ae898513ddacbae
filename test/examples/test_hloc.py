"""hloc's models, loaded and called as hloc does: by module name, with batches of one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from superglue_ros.data.image import to_grey
from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera

FOLDER = Path(__file__).resolve().parents[2] / "examples/hloc"


class BaseModel(torch.nn.Module):
    """What the models take from hloc's class of this name (hloc 1.5), where hloc is not there."""

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data):
        for key in self.required_inputs:
            assert key in data
        return self._forward(data)


@pytest.fixture
def hloc(monkeypatch):
    """hloc's packages; empty ones where hloc is not installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    try:
        import hloc  # noqa: F401
    except ImportError:
        for name in ("hloc", "hloc.extractors", "hloc.matchers", "hloc.utils"):
            module = ModuleType(name)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, name, module)
            if "." in name:
                setattr(sys.modules["hloc"], name.partition(".")[2], module)
        base = ModuleType("hloc.utils.base_model")
        base.BaseModel = BaseModel
        monkeypatch.setitem(sys.modules, "hloc.utils.base_model", base)
    from superglue_ros_hloc import FEATURES, MATCHES, register

    register()
    register()  # twice does no harm
    assert len(sys.modules["hloc.extractors"].__path__) == len(
        set(sys.modules["hloc.extractors"].__path__)
    )
    made = []
    for kind, conf in (("extractors", FEATURES), ("matchers", MATCHES)):
        module = importlib.import_module(f"hloc.{kind}.{conf['model']['name']}")
        (model,) = (
            one
            for one in vars(module).values()
            if isinstance(one, type) and one.__module__ == module.__name__
        )
        made.append(model({**conf["model"], "max_keypoints": 300, "precision": "float32"}).eval())
    return made


def test_an_image_shifted_by_eight_pixels_is_matched(hloc):
    extractor, matcher = hloc
    image = to_grey(RoomSequence(frames=60, camera=built_in_camera(320, 240))[10].image)
    data = {}
    for side, part in (("0", image[:, :-8]), ("1", image[:, 8:])):
        tensor = torch.from_numpy(part.astype(np.float32) / 255)[None, None]
        found = extractor({"image": tensor})
        # By way of hloc's files: half floats, and of the image only its size.
        data |= {name + side: values[0].half()[None].float() for name, values in found.items()}
        data[f"image{side}"] = torch.empty((1, 1, *part.shape))
    count = data["keypoints0"].shape[1]
    assert data["descriptors0"].shape == (1, 256, count)
    found = matcher(data)
    assert found["matches0"].shape == found["matching_scores0"].shape == (1, count)
    matches = found["matches0"][0]
    matched = matches >= 0
    assert matched.sum() > 100
    moved = data["keypoints0"][0][matched] - data["keypoints1"][0][matches[matched]]
    assert (moved - torch.tensor([8.0, 0.0])).abs().median() < 0.1
    assert (found["matching_scores0"][0][matched] >= 0.2).all()
    assert (found["matching_scores0"][0][~matched] == 0).all()
