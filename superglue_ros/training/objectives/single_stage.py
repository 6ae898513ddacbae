"""What the objectives of one stage have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from torch import nn


class SingleStage:
    """Most of :class:`superglue_ros.training.trainer.Objective`, for a ``network`` with a config.

    ``name`` is that of the stage; all parameters that require a gradient are trained.
    """

    name: ClassVar[str]
    capturable = False
    network: Any

    def architecture(self) -> dict[str, Any]:
        """See :class:`superglue_ros.training.trainer.Objective`."""
        values = asdict(self.network.config)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def stage(self, step: int) -> str:
        """There is one stage."""
        return self.name

    def stage_end(self, step: int) -> None:
        """There is one stage."""
