"""The end of a node's process."""

from __future__ import annotations

import signal


def ignore_further_signals() -> None:
    """Ignore further signals while the process ends.

    Ctrl-C in a terminal reaches a launched node twice, from the terminal and from launch, which
    sends SIGTERM five seconds later; the interpreter's own end takes seconds on a busy machine.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
