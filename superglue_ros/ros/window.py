"""What has changed over the last seconds, of something that is looked at now and then."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Window(Generic[T]):
    """Remembers the states of the last seconds, as given to :meth:`look`; ``state`` at ``now``."""

    def __init__(self, state: T, now: float) -> None:
        self._seen: deque[tuple[float, T]] = deque([(now, state)])

    def look(self, state: T, now: float, seconds: float) -> tuple[T, float]:
        """Record ``state`` at ``now``; returns the state ``seconds`` ago and how long ago it was.

        That is the first of all where there is none so old.
        """
        self._seen.append((now, state))
        while now - self._seen[1][0] >= seconds:
            self._seen.popleft()
        before, earlier = self._seen[0]
        return earlier, now - before
