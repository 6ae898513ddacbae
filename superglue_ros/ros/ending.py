"""Spins a node until its process is to end.

rclpy's own signal handlers shut the context down at once, and a frame in work could no longer be
published. Here a signal only ends the spinning: the context lives until the node is destroyed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0  # with the callback in hand, which may load networks
_DESTRUCTION_SECONDS = 60.0  # takes milliseconds, after the frame in work, which has 30 s
_STDERR = 2


class Ending:
    """The wish to end the process: SIGINT and SIGTERM, or :meth:`wish`. The first one counts.

    To be made in the main thread, before ``rclpy.init`` without its signal handlers.
    """

    def __init__(self) -> None:
        # A signal handler may interrupt any line of the main thread: this queue is reentrant.
        self._wishes: SimpleQueue[tuple[int, str] | BaseException] = SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self.wish(0, signal.Signals(number).name))

    def wish(self, code: int, reason: str) -> None:
        """End the process with this exit code; from any thread."""
        self._wishes.put((code, reason))

    def _next_wish(self) -> tuple[int, str] | BaseException:
        # Python runs signal handlers between two steps of the main thread: a signal that comes on
        # its way into a wait, or to another thread, does not end a wait without a limit.
        while True:
            with contextlib.suppress(Empty):
                return self._wishes.get(timeout=_LOOK_SECONDS)

    def spin(self, node: Node, first: Callable[[], None] | None = None) -> int:
        """Run ``first`` and then the callbacks of ``node`` until the process is to end.

        Returns the exit code; raises what a callback raises. Where a callback does not return, this
        ends the process itself.
        """
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        end: Future[None] = Future()

        def run() -> None:
            try:
                if first is not None and self._wishes.empty():
                    first()
                executor.spin_until_future_complete(end)
            except BaseException as error:
                self._wishes.put(error)

        # Not in the main thread, where Python runs signal handlers: waiting in rcl holds them up.
        thread = threading.Thread(target=run, name="executor", daemon=True)
        thread.start()
        wish = self._next_wish()
        if isinstance(wish, tuple):
            _report(node, *wish)
        end.set_result(None)
        thread.join(_PATIENCE_SECONDS if isinstance(wish, tuple) and not wish[0] else 1.0)
        if thread.is_alive() and isinstance(wish, tuple):
            os._exit(wish[0])  # the end of the interpreter and of CUDA would wait for what hangs
        executor.shutdown()
        if isinstance(wish, BaseException):
            raise wish
        return wish[0]


def destroy(node: Node, within: float = _DESTRUCTION_SECONDS) -> None:
    """``node.destroy_node()``, or the end of the process where that takes longer than ``within`` s.

    Fast DDS may loop for ever in it (docs/reliability.md), and rclpy holds Python's lock meanwhile:
    no Python code runs any more. The stacks of all threads go to stderr, the exit code is 1.
    """
    faulthandler.dump_traceback_later(within, exit=True, file=_STDERR)
    try:
        node.destroy_node()
    finally:
        faulthandler.cancel_dump_traceback_later()


def _report(node: Node, code: int, reason: str) -> None:
    # One call each: rclpy ties a severity to the line that logs.
    if code:
        node.get_logger().error(f"the process ends with exit code {code}: {reason}")
    else:
        node.get_logger().info(f"the process ends: {reason}")
