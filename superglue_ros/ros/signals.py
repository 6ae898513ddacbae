"""The end of a node's process."""

from __future__ import annotations

import os
import signal


def end_at_once() -> None:
    """Let SIGINT and SIGTERM end the process with exit code 0, until rclpy takes them over.

    For the seconds in which a node imports its modules, when there is nothing to clean up and
    Python would raise KeyboardInterrupt in the middle of an import.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def ignore_further_signals() -> None:
    """Ignore further signals while the process ends.

    Ctrl-C in a terminal reaches a launched node twice, from the terminal and from launch, which
    sends SIGTERM five seconds later; the interpreter's own end takes seconds on a busy machine.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
