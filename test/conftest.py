"""For all tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

# Modules that tests share: the matcher's process, and the campaign against it.
sys.path[:0] = [str(Path(__file__).parent / room) for room in ("ros", "campaign")]


def pytest_configure() -> None:
    """Let child processes take an interrupt.

    A shell starts background jobs with SIGINT ignored, and children inherit that: nodes would then
    not stop as they do in a terminal or under launch.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The networks of tests that run side by side share the cores.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
