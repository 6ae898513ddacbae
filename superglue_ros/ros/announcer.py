"""Throttled log lines: at once, then at most every few seconds with a count."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

THROTTLE_SECONDS = 5.0


class Announcer:
    """Writes to a node's log; safe to use from several threads. ``logger`` is rclpy's."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, text: str) -> None:
        """Warn, every time."""
        self._logger.warning(text)

    def once(self, key: str, text: str) -> None:
        """Warn the first time for ``key`` only, until :meth:`forget`."""
        with self._lock:
            if key in self._said:
                return
            self._said[key] = (time.monotonic(), 0)
        self._logger.warning(text)

    def throttled(self, key: str, text: str) -> None:
        """Log an error at most every few seconds for ``key``, counting those in between."""
        now = time.monotonic()
        with self._lock:
            last, unsaid = self._said.get(key, (-THROTTLE_SECONDS, 0))
            if now - last < THROTTLE_SECONDS:
                self._said[key] = (last, unsaid + 1)
                return
            self._said[key] = (now, 0)
        self._logger.error(text + (f" (repeated {unsaid} times before)" if unsaid else ""))

    def forget(self) -> None:
        """Forget what was logged."""
        with self._lock:
            self._said.clear()


class LogBridge(logging.Handler):
    """Forwards the log records of the core, which is independent of ROS, to the node's log."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._ros = logger

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        text = self.format(record)
        # One call each: rclpy ties a severity to the line that logs.
        if record.levelno >= logging.ERROR:
            self._ros.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros.warning(text)
        else:
            self._ros.info(text)
