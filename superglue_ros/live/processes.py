"""Child processes that never outlive their parent, with their output in log files."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from superglue_ros.errors import SuperglueError

_LAST_LINES = 12
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class ProcessError(SuperglueError):
    """A process of the demonstration failed."""


class Child:
    """A Python module that runs as a separate process.

    Its output goes to ``log``; the standard output can be read line by line too.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log = log
        self._lines: queue.Queue[str] = queue.Queue()
        self._interrupted = False
        log.unlink(missing_ok=True)
        with log.open("ab") as file:  # both outputs append: neither writes over the other
            # A new session: an interrupt from the terminal reaches only the parent, which then
            # stops its children in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("a") as file:
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                self._lines.put(line.rstrip("\n"))

    def line(self, timeout: float) -> str | None:
        """The next line of its standard output, None if none comes within ``timeout`` seconds."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise :class:`ProcessError` with the end of the log if it ended with an error."""
        if self.exit_code:
            raise ProcessError(
                f"the {self.name} ended with exit code {self.exit_code}. The end of {self.log}:\n"
                + self.log_end()
            )

    def check_running(self) -> None:
        """As :meth:`check`, but raises also if it ended without an error."""
        self.check()
        if self.exit_code is not None:
            raise ProcessError(
                f"the {self.name} ended too early. {self.log} ends:\n{self.log_end()}"
            )

    def log_end(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_lines()[-_LAST_LINES:]) or "(empty)"

    def log_lines(self) -> list[str]:
        """Its output so far."""
        return self.log.read_text(errors="replace").splitlines()

    def interrupt(self) -> None:
        """Interrupt it, once: a second interrupt would cut its cleanup short."""
        if self.exit_code is None and not self._interrupted:
            self._interrupted = True
            self._process.send_signal(signal.SIGINT)

    def stop(self, patience: float = 20.0) -> int:
        """Interrupt it, and kill it if it does not end; returns its exit code."""
        self.interrupt()
        if not self._ended_within(patience):
            self._process.terminate()
            if not self._ended_within(5.0):
                self._process.kill()
        return self._process.wait()

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class Children:
    """Starts processes, and stops all of them on exit from the block."""

    def __init__(self, log_folder: Path, env: dict[str, str]) -> None:
        self._folder = log_folder
        self._env = env
        self._children: list[Child] = []

    def start(self, name: str, *command: str) -> Child:
        """Start ``python -m command``; its log is ``name``.log."""
        child = Child(name, command, self._folder / f"{name}.log", self._env)
        self._children.append(child)
        return child

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for child in self._children:
            child.interrupt()
        for child in self._children:
            child.stop(patience=20.0 if kind is None else 5.0)


def die_with_parent(parent: int) -> None:
    """Linux: the kernel interrupts the child if its parent is killed. To be called in the child."""
    if _LIBC is not None:
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGINT)
        if os.getppid() != parent:  # it was killed before this
            os._exit(1)
