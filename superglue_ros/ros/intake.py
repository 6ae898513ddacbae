"""Hands frames from the receiving thread to the computing thread; no ROS.

The synchroniser's callback only stores (:meth:`Intake.put`); one worker thread takes frames out and
runs the networks. Jobs go to the same thread: new settings ahead of the frames, requests in turn
with them, so that only one thread uses the pipeline and neither kind starves the other. Everything
that waits is bounded: frames by their bytes, sources and requests by their number.
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


class Worker(Generic[T]):
    """One thread that hands frames to ``on_frames`` and runs jobs between them.

    ``on_frames`` receives the frames that are taken together, see :class:`Intake`. If it raises,
    which is a defect of the caller, the error is logged and the thread continues.
    """

    def __init__(
        self,
        on_frames: Callable[[list[T]], None],
        *,
        lossless: bool,
        together: Callable[[T], bool] = lambda frame: True,
        size: Callable[[T], int] = lambda frame: 0,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._on_frames = on_frames
        self._intake: Intake[T] = Intake(lossless, together, size, max_bytes)
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._requests: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._busy_since: float | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="matcher-worker", daemon=True)
        self._thread.start()

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
        """For how long the frames or the job in hand have been worked on; 0 if there are none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

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
        """Run ``job`` on the worker thread before the next frame.

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
        """Drop the waiting frames, not the one in progress; returns their number."""
        with self._wake:
            return self._intake.clear()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all frames are processed; False after the timeout."""
        with self._wake:
            return self._wake.wait_for(self._is_idle, timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Drop waiting frames, finish the current one, end the thread; False after the timeout."""
        with self._wake:
            self._stopping = True
            self._intake.clear()
            for waiting in (self._jobs, self._requests):
                while waiting:
                    waiting.popleft()[1].cancel()
            self._wake.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _is_idle(self) -> bool:
        waiting = self._jobs or self._requests or len(self._intake)
        return self._busy_since is None and not waiting

    def _run(self) -> None:
        requested = False  # whether the turn is the frames'
        while True:
            with self._wake:
                self._busy_since = None
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stopping or not self._is_idle())
                if self._stopping:
                    return
                self._busy_since = time.monotonic()
                job = None
                if self._jobs:
                    job = self._jobs.popleft()
                elif self._requests and not (requested and len(self._intake)):
                    job, requested = self._requests.popleft(), True
                frames = [] if job else self._intake.take()
                requested = requested and not frames
            if job is not None:
                _execute(*job)
            elif frames:
                try:
                    self._on_frames(frames)
                except Exception:
                    log.exception("%d frames were lost to an unforeseen error", len(frames))


def _execute(job: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
