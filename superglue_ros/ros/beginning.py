"""Begins ROS in a process, also where a killed one left shared memory in its way.

Fast DDS makes a file in /dev/shm for every port of a participant, and the next participant of that
domain and number opens the one that it finds. Of a process killed while it made that file there
stays one without content, for which the next waits for ever, with no word.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

_SHARED_MEMORY = Path("/dev/shm")
_PORTS = "fast*_port[0-9]*[0-9]"  # fastdds since Fast DDS 3, fastrtps before; not their locks
_FINISHED = (2).to_bytes(4, "little")  # Boost.Interprocess: the segment is made; below: not yet
_AGE_SECONDS = 10.0  # making one takes milliseconds


def begin(
    args: Sequence[str] | None = None,
    signal_handlers: SignalHandlerOptions = SignalHandlerOptions.NO,
) -> None:
    """``rclpy.init`` after :func:`remove_unfinished_ports`."""
    remove_unfinished_ports()
    rclpy.init(args=None if args is None else list(args), signal_handler_options=signal_handlers)


def remove_unfinished_ports(folder: Path = _SHARED_MEMORY) -> list[Path]:
    """Remove the ports in shared memory that a process began, but did not finish 10 s ago.

    Returns and logs those removed; logs those that may not be removed.
    """
    log = get_logger("superglue_ros")
    removed = []
    for port in sorted(folder.glob(_PORTS)):
        try:
            status = port.lstat()
            if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < _AGE_SECONDS:
                continue
            with port.open("rb") as file:
                if file.read(4) >= _FINISHED:
                    continue
        except OSError:  # it went away, or is another user's: Fast DDS opens no others either
            continue
        try:
            port.unlink()
        except OSError as error:
            log.error(
                f"{port} is what a killed process left of a port of Fast DDS: the node may wait "
                f"for it for ever. It could not be removed ({error.strerror}): remove it by hand"
            )
            continue
        removed.append(port)
        log.warning(f"{port}, left by a process that was killed while it began, is removed")
    return removed
