"""What the set-up scripts share: do a thing once, and again only when its sources change."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one set-up script work on this repository at a time; the others wait."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def fingerprint(files: Iterable[Path], *facts: object) -> str:
    """Return a hash of files (names and contents) and of anything else that matters."""
    digest = hashlib.sha256(repr(facts).encode())
    for file in sorted(set(files)):
        digest.update(repr((file.relative_to(ROOT).as_posix(), file.read_bytes())).encode())
    return digest.hexdigest()


def is_current(stamp: Path, value: str) -> bool:
    """Return whether the stamp was written with this fingerprint."""
    return stamp.exists() and stamp.read_text() == value
