"""Hands frames from the receiving thread to the computing threads; no ROS.

The synchroniser's callback only stores (:meth:`Intake.put`); a worker takes frames out and runs the
networks, in one thread, or in two of which one is a frame ahead. Jobs run between frames, while
none is in work: new settings ahead of the frames, requests in turn with them, so that neither kind
starves the other. Everything that waits is bounded: frames by their bytes, sources and requests by
their number, frames between the two threads by one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from superglue_ros.errors import BusyError

log = logging.getLogger(__name__)

T = TypeVar("T")
S = TypeVar("S")


MAX_SOURCES = 64
"""Sources of which frames wait at a time: another robot may call itself anything, many times."""
MAX_REQUESTS = 16
"""Requests that wait at a time."""


class Intake(Generic[T]):
    """Frames waiting for the worker.

    ``latest``: one slot per source, the newest frame wins, of at most ``MAX_SOURCES``.
    ``lossless``: all of them, in order of arrival, as long as ``max_bytes`` hold them; ``size``
    gives the bytes of a frame. ``len()`` is the number waiting, ``bytes`` their size. Frames of
    different sources are taken together if ``together`` is true for them.
    """

    def __init__(
        self,
        lossless: bool,
        together: Callable[[T], bool] = lambda frame: True,
        size: Callable[[T], int] = lambda frame: 0,
        max_bytes: int = 1 << 30,
    ) -> None:
        self.bytes = 0
        self.max_bytes = max_bytes
        self._lossless = lossless
        self._together = together
        self._size = size
        self._queues: OrderedDict[Hashable, deque[tuple[Hashable, T]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def put(self, frame: T, source: Hashable = 0) -> int:
        """Store a frame of a source; returns how many frames were dropped for it (0 or 1).

        That is the waiting one that it replaces, or itself where there is no room.
        """
        key = None if self._lossless else source
        size = self._size(frame)
        dropped = 0
        if self._lossless:
            full = bool(self._queues) and self.bytes + size > self.max_bytes
        else:
            full = key not in self._queues and len(self._queues) >= MAX_SOURCES
        if full:
            return 1
        queue = self._queues.setdefault(key, deque())
        if queue and not self._lossless:
            self.bytes -= self._size(queue.popleft()[1])
            dropped = 1
        queue.append((source, frame))
        self.bytes += size
        return dropped

    def take(self) -> list[T]:
        """The next frame, with the sources in turn, and at most one of each other waiting source.

        Empty if no frame waits. In lossless mode the order of arrival is kept.
        """
        taken: dict[Hashable, T] = {}
        for key, queue in list(self._queues.items()):
            while queue and queue[0][0] not in taken and self._fits(queue[0][1], taken):
                source, frame = queue.popleft()
                self.bytes -= self._size(frame)
                taken[source] = frame
                self._queues.move_to_end(key)
            if not queue:
                del self._queues[key]
        return list(taken.values())

    def _fits(self, frame: T, taken: Mapping[Hashable, T]) -> bool:
        return not taken or all(self._together(one) for one in (frame, *taken.values()))

    def clear(self) -> int:
        """Drop all waiting frames; returns their number."""
        waiting = len(self)
        self._queues.clear()
        self.bytes = 0
        return waiting


class Worker(Generic[T, S]):
    """Takes frames through two stages, and runs jobs between them.

    ``first`` receives the frames that are taken together, see :class:`Intake`, and ``then`` what
    ``first`` returned. With ``overlap`` each stage has a thread: ``first`` works on the next frames
    while ``then`` works on these. It is never further ahead, since no frames are taken while some
    wait between the stages, and the order is kept. Otherwise one thread does both in turn. Jobs run
    on the first thread while no frames are in work.

    If a stage raises, which is a defect of the caller, the error is logged and the thread goes on.
    """

    def __init__(
        self,
        first: Callable[[list[T]], S],
        then: Callable[[S], None],
        *,
        overlap: bool,
        lossless: bool,
        together: Callable[[T], bool] = lambda frame: True,
        size: Callable[[T], int] = lambda frame: 0,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._first, self._then = first, then
        self._overlap = overlap
        self._intake: Intake[T] = Intake(lossless, together, size, max_bytes)
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._requests: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._requested = False  # whether the turn is the frames'
        self._between: list[S] = []  # at most one
        self._wake = threading.Condition()
        self._busy_since: dict[str, float | None] = {"first": None, "then": None}
        self._stopping = False
        self._first_ended = False
        runs = {"first": self._run_first, **({"then": self._run_then} if overlap else {})}
        self._threads = [
            threading.Thread(target=run, name=f"matcher-{name}", daemon=True)
            for name, run in runs.items()
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Frames in the intake."""
        with self._wake:
            return len(self._intake)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the frames in the intake."""
        with self._wake:
            return self._intake.bytes

    @property
    def busy_seconds(self) -> float:
        """For how long a stage or a job has been at work, the longest; 0 if none is."""
        now = time.monotonic()
        return max(0.0 if since is None else now - since for since in self._busy_since.values())

    def bound(self, max_bytes: int) -> None:
        """Change the bound of the intake."""
        with self._wake:
            self._intake.max_bytes = max_bytes

    def put(self, frame: T, source: Hashable = 0) -> int:
        """Store a frame, see :meth:`Intake.put`; never blocks on the networks."""
        with self._wake:
            dropped = self._intake.put(frame, source)
            self._wake.notify_all()
        return dropped

    def submit(self, job: Callable[[], Any], *, request: bool = False) -> Future[Any]:
        """Run ``job`` before the next frames are taken, while none are in work.

        A ``request`` comes from outside and takes turns with the frames: where ``MAX_REQUESTS``
        wait the future raises :class:`BusyError`.
        """
        future: Future[Any] = Future()
        with self._wake:
            if request and len(self._requests) >= MAX_REQUESTS:
                future.set_exception(
                    BusyError(f"{MAX_REQUESTS} requests wait already: try again later")
                )
                return future
            if self._stopping:
                future.set_exception(RuntimeError("the worker has stopped"))
                return future
            (self._requests if request else self._jobs).append((job, future))
            self._wake.notify_all()
        return future

    def drop_waiting(self) -> int:
        """Drop the waiting frames, not those in work; returns their number."""
        with self._wake:
            return self._intake.clear()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all frames are processed; False after the timeout."""
        with self._wake:
            return self._wake.wait_for(self._is_idle, timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Drop waiting frames, finish those in work, end the threads; False after the timeout."""
        with self._wake:
            self._stopping = True
            self._intake.clear()
            for waiting in (self._jobs, self._requests):
                while waiting:
                    waiting.popleft()[1].cancel()
            self._wake.notify_all()
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _is_idle(self) -> bool:
        waiting = self._jobs or self._requests or len(self._intake)
        return not waiting and self._busy_since["first"] is None and self._is_through()

    def _is_through(self) -> bool:
        """Whether nothing is left that ``first`` has handed over."""
        return not self._between and self._busy_since["then"] is None

    def _job_due(self) -> deque[tuple[Callable[[], Any], Future[Any]]] | None:
        """Where the job comes from whose turn it is, before any frames."""
        if self._jobs:
            return self._jobs
        return self._requests if self._requests and not self._frames_turn() else None

    def _frames_turn(self) -> bool:
        return self._requested and len(self._intake) > 0

    def _may_begin(self) -> bool:
        if self._job_due() is not None:
            return self._is_through()
        return len(self._intake) > 0 and not self._between

    def _run_first(self) -> None:
        while True:
            with self._wake:
                self._busy_since["first"] = None
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stopping or self._may_begin())
                if self._stopping:
                    self._first_ended = True
                    self._wake.notify_all()
                    return
                self._busy_since["first"] = time.monotonic()
                due = self._job_due()
                job = None if due is None else due.popleft()
                frames = [] if job else self._intake.take()
                self._requested = due is self._requests or (self._requested and not frames)
            if job is not None:
                _execute(*job)
            else:
                self._begin(frames)

    def _begin(self, frames: list[T]) -> None:
        try:
            begun = self._first(frames)
        except Exception:
            log.exception("%d frames were lost to an unforeseen error", len(frames))
            return
        if not self._overlap:
            self._end(begun)
            return
        with self._wake:
            self._between.append(begun)
            self._wake.notify_all()

    def _run_then(self) -> None:
        while True:
            with self._wake:
                self._busy_since["then"] = None
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._between or self._first_ended)
                if not self._between:
                    return
                self._busy_since["then"] = time.monotonic()
                begun = self._between.pop()
                self._wake.notify_all()
            self._end(begun)

    def _end(self, begun: S) -> None:
        try:
            self._then(begun)
        except Exception:
            log.exception("frames were lost to an unforeseen error")


def _execute(job: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
