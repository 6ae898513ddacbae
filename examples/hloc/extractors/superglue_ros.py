"""The packaged SuperPoint for hloc; see ``superglue_ros_hloc.py``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from hloc.utils.base_model import BaseModel

from superglue_ros.config import Config
from superglue_ros.frontends.base import make_front_end
from superglue_ros.settings import build


class SuperPoint(BaseModel):
    default_conf: ClassVar = {
        "max_keypoints": 2048,
        "nms_radius": 4,
        "threshold": 0.005,
        "precision": "auto",
    }
    required_inputs: ClassVar = ["image"]
    detection_noise = 1.0

    def _init(self, conf: dict[str, Any]) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as hloc does
        names = ("max_keypoints", "nms_radius", "threshold")
        front_end = {name: conf[name] for name in names}
        settings = build(Config, {"precision": conf["precision"], "front_end": front_end})
        self._front_end = make_front_end(settings, device)

    def _forward(self, data: dict[str, torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        """``image`` (1, 1, H, W) in [0, 1]; keypoints (N, 2), scores (N,), descriptors (D, N)."""
        grey = (data["image"][0, 0] * 255).round().to(torch.uint8).cpu().numpy()
        found = self._front_end.extract(grey)
        assert found.descriptors is not None
        return {
            "keypoints": [torch.from_numpy(found.keypoints)],
            "scores": [torch.from_numpy(found.scores)],
            "descriptors": [torch.from_numpy(found.descriptors.T.copy())],
        }
