"""Hands frames from the receiving thread to the computing thread; no ROS.

The synchroniser's callback only stores (:meth:`Intake.put`); one worker thread takes frames out and
runs the networks. Jobs (services, new settings, resets) go to the same thread ahead of the frames,
so that only one thread uses the pipeline.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Intake(Generic[T]):
    """Frames waiting for the worker.

    ``latest``: one slot per source, the newest frame wins. ``lossless``: all of them, in order of
    arrival; the bound is memory, ``len()`` is the number waiting. Frames of
    different sources are taken together if ``together`` is true for them.
    """

    def __init__(self, lossless: bool, together: Callable[[T], bool] = lambda frame: True) -> None:
        self._lossless = lossless
        self._together = together
        self._queues: OrderedDict[Hashable, deque[tuple[Hashable, T]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def put(self, frame: T, source: Hashable = 0) -> int:
        """Store a frame of a source; returns how many waiting frames it replaced (0 or 1)."""
        queue = self._queues.setdefault(None if self._lossless else source, deque())
        dropped = 0
        if queue and not self._lossless:
            queue.popleft()
            dropped = 1
        queue.append((source, frame))
        return dropped

    def take(self) -> list[T]:
        """The next frame, with the sources in turn, and at most one of each other waiting source.

        Empty if no frame waits. In lossless mode the order of arrival is kept.
        """
        taken: dict[Hashable, T] = {}
        for key, queue in list(self._queues.items()):
            while queue and queue[0][0] not in taken and self._fits(queue[0][1], taken):
                source, frame = queue.popleft()
                taken[source] = frame
                self._queues.move_to_end(key)
        return list(taken.values())

    def _fits(self, frame: T, taken: Mapping[Hashable, T]) -> bool:
        return not taken or all(self._together(one) for one in (frame, *taken.values()))

    def clear(self) -> int:
        """Drop all waiting frames; returns their number."""
        waiting = len(self)
        self._queues.clear()
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
    ) -> None:
        self._on_frames = on_frames
        self._intake: Intake[T] = Intake(lossless, together)
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="matcher-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Frames in the intake."""
        with self._wake:
            return len(self._intake)

    def put(self, frame: T, source: Hashable = 0) -> int:
        """Store a frame, see :meth:`Intake.put`; never blocks on the networks."""
        with self._wake:
            dropped = self._intake.put(frame, source)
            self._wake.notify_all()
        return dropped

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Run ``job`` on the worker thread before the next frame."""
        future: Future[Any] = Future()
        with self._wake:
            if self._stopping:
                future.set_exception(RuntimeError("the worker has stopped"))
                return future
            self._jobs.append((job, future))
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
            while self._jobs:
                self._jobs.popleft()[1].cancel()
            self._wake.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _is_idle(self) -> bool:
        return not self._busy and not self._jobs and not len(self._intake)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stopping or not self._is_idle())
                if self._stopping:
                    return
                self._busy = True
                job = self._jobs.popleft() if self._jobs else None
                frames = [] if job else self._intake.take()
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
