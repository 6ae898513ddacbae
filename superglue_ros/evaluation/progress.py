"""Progress bars: live on a terminal, one final line in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

console = Console(stderr=True)
_LINE_S = 60.0


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items and show the progress."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def counted(total: int, what: str, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with the rate in ``unit`` a second; in a log, a line every minute.

    The function takes how much more is done than before. ``done`` were done before it all began,
    and do not count for the rate.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = said = time.monotonic()
    count = done
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, completed=done, rate=0.0)

        def advance(more: int) -> None:
            nonlocal count, said
            count += more
            now = time.monotonic()
            rate = (count - done) / max(now - started, 1e-9)
            progress.update(task, completed=count, rate=rate)
            if not console.is_terminal and now - said > _LINE_S:
                said = now
                console.print(f"{what}: {count} of {total}, {rate:.1f} {unit}/s")

        yield advance
