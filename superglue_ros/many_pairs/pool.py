"""Shards of work on Ray's actors: retried until done, whatever happens to a worker.

Nothing is in a worker's memory but the shard at hand, whose file it writes whole. So a worker that
dies, or that is killed because it hangs, costs the time of one shard; the shard goes to another.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from superglue_ros.errors import ConfigError, DataError, SuperglueError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
try:
    import ray
    from ray.exceptions import RayActorError
except ImportError as error:
    raise ConfigError(
        f"match-many needs {error.name}: pip install 'superglue_ros[many]'"
    ) from error

log = logging.getLogger(__name__)

_LOOK_S = 1.0  # how often to look for workers that hang
_STORE_BYTES = 256 << 20  # of Ray's shared memory on this machine, which holds the names of images
_MOST_FAILURES = 10  # shards that fail for good before the run does


@dataclass(frozen=True)
class PoolOptions:
    """``workers`` processes with ``cpus`` and ``gpus`` each; ``workers`` 0: as many as fit.

    ``address`` of a Ray cluster, "" = one on this machine for this run. A worker that finishes
    nothing for ``timeout_s`` hangs. A shard is tried ``attempts`` times.
    """

    workers: int = 0
    cpus: int = 1
    gpus: float = 0.0
    address: str = ""
    timeout_s: float = 600.0
    attempts: int = 3


@dataclass(eq=False)
class _Shard:
    number: int
    argument: Any
    attempts: int = 0
    reason: str = ""


@dataclass(eq=False)
class _Slot:
    """A worker, what is waited for from it, and the shard it has: none while it starts."""

    actor: Any
    waiting: Any
    shard: _Shard | None = None
    since: float = 0.0
    done: int = 0


class Pool:
    """Workers of one class on a Ray cluster; leave it as a context.

    ``make`` is a class with a method ``start``; it is made with ``arguments``, which are sent once.
    """

    def __init__(self, options: PoolOptions, make: type, *arguments: Any) -> None:
        self._options = options
        self._make = make
        self._arguments = arguments

    def __enter__(self) -> Pool:
        """Connect, and start the workers. Raises :class:`ConfigError`."""
        options = self._options
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if options.address:
                ray.init(address=options.address, **quiet)
            else:
                ray.init(
                    address="local",
                    num_cpus=options.workers * options.cpus or None,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    **quiet,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster at {options.address!r}: {error}") from error
        try:
            self._shared = [ray.put(argument) for argument in self._arguments]
            self._class = ray.remote(
                num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=0, max_task_retries=0
            )(self._make)
            self._bad_starts = 0
            self._slots = [self._new() for _ in range(options.workers or self._as_many_as_fit())]
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._slots)

    def run(
        self, method: str, shards: Mapping[int, Any], advance: Callable[[int], None]
    ) -> dict[int, str]:
        """Call ``method(number, argument)`` for every shard; returns why shards were given up.

        ``method`` yields how much more is done, which goes to ``advance``, negative where a shard
        has to be done again. Raises the worker's own :class:`SuperglueError` if none can start, and
        :class:`DataError` where too many shards fail.
        """
        todo = deque(_Shard(number, argument) for number, argument in shards.items())
        given_up: dict[int, str] = {}
        while todo or any(slot.shard for slot in self._slots):
            self._assign(method, todo)
            waiting = {slot.waiting: slot for slot in self._slots if slot.waiting is not None}
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK_S)
            failed = [self._hear(waiting[one], advance) for one in ready]
            failed += self._hanging()
            for slot in failed:
                if slot is None or slot.shard is None:
                    continue
                advance(-slot.done)
                self._again(slot.shard, todo, given_up)
                slot.shard, slot.waiting = None, None
            self._replace_dead()
        return given_up

    def _assign(self, method: str, todo: deque[_Shard]) -> None:
        for slot in self._slots:
            if todo and slot.shard is None and slot.waiting is None:
                slot.shard = todo.popleft()
                slot.shard.attempts += 1
                call = getattr(slot.actor, method).options(num_returns="streaming")
                slot.waiting = call.remote(slot.shard.number, slot.shard.argument)
                slot.since, slot.done = time.monotonic(), 0

    def _hear(self, slot: _Slot, advance: Callable[[int], None]) -> _Slot | None:
        """Take what a worker says; the slot if its shard failed."""
        try:
            if slot.shard is None:
                log.info("worker %d is ready", ray.get(slot.waiting))
                slot.waiting, self._bad_starts = None, 0
                return None
            more = ray.get(next(slot.waiting))
            slot.since = time.monotonic()
            slot.done += more
            advance(more)
            return None
        except StopIteration:
            slot.shard, slot.waiting = None, None
            return None
        except RayActorError as error:
            slot.actor = None
            return self._failed(slot, f"its worker died: {_first_line(error)}")
        except Exception as error:  # whatever the method raises, as Ray passes it on
            if slot.shard is None and isinstance(error, SuperglueError):
                raise getattr(error, "cause", error) from error  # as every worker would
            return self._failed(slot, _first_line(error))

    def _failed(self, slot: _Slot, reason: str) -> _Slot:
        if slot.shard is None:
            self._bad_starts += 1
            if self._bad_starts >= self._options.attempts * len(self._slots):
                raise ConfigError(f"no worker starts: {reason}")
            slot.actor = None
        else:
            log.info("shard %d failed: %s", slot.shard.number, reason)
            slot.shard.reason = reason
        return slot

    def _hanging(self) -> Iterable[_Slot]:
        """Kill the workers that finished nothing for too long."""
        for slot in self._slots:
            if slot.shard and time.monotonic() - slot.since > self._options.timeout_s:
                ray.kill(slot.actor, no_restart=True)
                slot.actor = None
                yield self._failed(slot, f"nothing was done for {self._options.timeout_s:g} s")

    def _again(self, shard: _Shard, todo: deque[_Shard], given_up: dict[int, str]) -> None:
        if shard.attempts < self._options.attempts:
            todo.append(shard)
            return
        given_up[shard.number] = shard.reason
        if len(given_up) >= _MOST_FAILURES:
            raise DataError(
                f"{len(given_up)} shards failed {shard.attempts} times each, the last because "
                f"{shard.reason}: see to that and run the same command again"
            )

    def _replace_dead(self) -> None:
        for place, slot in enumerate(self._slots):
            if slot.actor is None:
                self._slots[place] = self._new()

    def _new(self) -> _Slot:
        actor = self._class.remote(*self._shared)
        return _Slot(actor=actor, waiting=actor.start.remote())

    def _as_many_as_fit(self) -> int:
        there = ray.cluster_resources()
        fit = there.get("CPU", 0) // self._options.cpus
        if self._options.gpus:
            fit = min(fit, there.get("GPU", 0) // self._options.gpus)
        if fit < 1:
            raise ConfigError(
                f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs: "
                f"a worker of {self._options.cpus} and {self._options.gpus:g} does not fit"
            )
        return int(fit)


def _first_line(error: BaseException) -> str:
    """What happened, without Ray's traceback."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().splitlines()[0][:300] if str(cause).strip() else repr(cause)
