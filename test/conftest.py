"""For all tests."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# Modules that tests share: the matcher's process, and the campaign against it.
sys.path[:0] = [str(Path(__file__).parent / room) for room in ("ros", "campaign")]


def pytest_configure() -> None:
    """Let child processes take an interrupt.

    A shell starts background jobs with SIGINT ignored, and children inherit that: nodes would then
    not stop as they do in a terminal or under launch.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
