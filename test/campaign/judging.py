"""What an input did: accepted, refused with which error, or one of the things that must not be.

Memory is looked at after every input: the peak of the resident memory since the last look is the
kernel's (``VmHWM``), and is set back where an input raised it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superglue_ros.errors import SuperglueError

MAX_SECONDS = 2.0
"""Of processor time for one input, or it counts as a hang."""
MAX_GROWTH_MIB = 512.0
LONGEST_TEXT = 2000
"""Characters of an error: a longer one floods the log with what the sender wrote."""
ACCEPTED = "accepted"
SILENT = "silently changed"
CRASH = "crash"
HANG = "hang"


class SilentlyChanged(Exception):
    """Damaged input was read as if nothing had happened."""


@dataclass(frozen=True)
class Outcome:
    """``kind`` for the counts; ``bad`` where it breaks a promise; ``detail``: the traceback.

    ``place``: the line that raised, by which failures of one cause are told from others.
    """

    kind: str
    bad: bool = False
    detail: str = ""
    place: str = ""


class Judge:
    """Judges inputs one after the other in this process."""

    def __init__(self) -> None:
        self._peak_mib = _peak_mib()

    def judge(self, read: Callable[[], Any]) -> Outcome:
        """Call ``read`` and say what came of it."""
        start = time.process_time()
        outcome = _outcome(read)
        seconds = time.process_time() - start
        if not outcome.bad and seconds > MAX_SECONDS:
            outcome = Outcome(HANG, True, f"{seconds:.1f} s of processor time; {outcome.kind}")
        peak = _peak_mib()
        if peak > self._peak_mib + 16:  # nothing to see below that, and setting back costs
            growth = peak - self._peak_mib
            if not outcome.bad and growth > MAX_GROWTH_MIB:
                outcome = Outcome("growth", True, f"{growth:.0f} MiB; {outcome.kind}")
            _set_peak_back()
            self._peak_mib = _peak_mib()
        return outcome


def _outcome(read: Callable[[], Any]) -> Outcome:
    try:
        read()
    except SuperglueError as error:
        text = str(error)
        if not text or len(text) > LONGEST_TEXT:
            return Outcome(f"error of {len(text)} characters", True, text[:200])
        return Outcome(type(error).__name__)
    except SilentlyChanged as error:
        return Outcome(SILENT, True, str(error))
    except Exception as error:
        return Outcome(
            f"untyped {type(error).__name__}", True, traceback.format_exc()[-4000:], _place(error)
        )
    return Outcome(ACCEPTED)


def _place(error: BaseException) -> str:
    """The innermost line of this package that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "superglue_ros" in frame.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def resident_mib(process: int | str = "self") -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _set_peak_back() -> None:
    with contextlib.suppress(OSError):  # not allowed in some containers: the peak only rises then
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
