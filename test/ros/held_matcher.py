"""The matcher node with a front-end that can be held while a frame is in work.

``python held_matcher.py FOLDER --ros-args ...``: as long as there is a file ``hold`` in the folder,
the front-end does not go on; it says so by a file ``held``. A file ``break`` makes it raise, a file
``hold-start`` holds the making of the front-end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from superglue_ros.config import Config
from superglue_ros.frontends.sift import SiftFrontEnd
from superglue_ros.registry import FRONT_ENDS
from superglue_ros.ros.signals import end_at_once
from superglue_ros.types import Features


class HeldSift(SiftFrontEnd):
    """SIFT that waits for leave."""

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__(config.front_end)
        self._folder = folder
        self._wait("hold-start")

    def extract(self, image):
        if (self._folder / "break").exists():
            raise RuntimeError("the device is lost")
        self._wait("hold")
        found: Features = super().extract(image)
        return found

    def _wait(self, name: str) -> None:
        while (self._folder / name).exists():
            (self._folder / "held").touch()
            time.sleep(0.01)


if __name__ == "__main__":
    end_at_once()
    folder = Path(sys.argv.pop(1))
    FRONT_ENDS.register(
        "held", lambda config, device: HeldSift(config, folder), "Held", "SIFT that waits."
    )
    from superglue_ros.ros.node import main

    sys.exit(main())
