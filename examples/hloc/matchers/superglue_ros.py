"""The packaged SuperGlue for hloc, on features of its extractor; see ``superglue_ros_hloc.py``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from hloc.utils.base_model import BaseModel

from superglue_ros.config import Config
from superglue_ros.matchers.base import make_matcher, match_pair
from superglue_ros.settings import build
from superglue_ros.types import Features


class SuperGlue(BaseModel):
    default_conf: ClassVar = {
        "match_threshold": 0.2,
        "sinkhorn_iterations": 100,
        "precision": "auto",
    }
    required_inputs: ClassVar = [
        f"{name}{side}" for side in "01" for name in ("image", "keypoints", "scores", "descriptors")
    ]

    def _init(self, conf: dict[str, Any]) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as hloc does
        matcher = {
            "threshold": conf["match_threshold"],
            "sinkhorn_iterations": conf["sinkhorn_iterations"],
        }
        settings = build(Config, {"precision": conf["precision"], "matcher": matcher})
        self._matcher = make_matcher(settings, device)

    def _forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keypoints (1, N, 2), scores (1, N), descriptors (1, D, N), image for its size alone.

        ``matches0`` (1, N0): the index in image 1, -1 = none; ``matching_scores0`` (1, N0).
        """
        found = match_pair(self._matcher, self._features(data, "0"), self._features(data, "1"))
        count = data["keypoints0"].shape[1]
        matches = torch.full((1, count), -1, dtype=torch.int64)
        scores = torch.zeros(1, count)
        index = torch.from_numpy(found.index_ref).long()
        matches[0, index] = torch.from_numpy(found.index_query).long()
        scores[0, index] = torch.from_numpy(found.scores)
        return {"matches0": matches, "matching_scores0": scores}

    def _features(self, data: dict[str, torch.Tensor], side: str) -> Features:
        height, width = data[f"image{side}"].shape[-2:]
        keypoints = data[f"keypoints{side}"][0].float().cpu().numpy()
        # hloc stores half floats, which may round a pixel of the border out of the image.
        keypoints = keypoints.clip(-0.5, [width - 0.5, height - 0.5])
        return Features(
            keypoints=keypoints.astype("float32"),
            scores=data[f"scores{side}"][0].float().cpu().numpy().clip(0, 1),
            width=int(width),
            height=int(height),
            detector=self._matcher.descriptor_kind or "",
            descriptors=data[f"descriptors{side}"][0].float().cpu().numpy().T.copy(),
        )
