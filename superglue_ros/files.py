"""Files from outside: opened only if they are regular and of bounded size; replaced atomically.

Opening a FIFO would wait for a writer for ever, and a sparse file may declare more than the memory
holds. So the kind and the size of a file are checked before a byte of it is read.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | Path, max_bytes: int) -> BinaryIO:
    """Open a regular file of at most ``max_bytes`` for reading; never waits.

    Raises OSError, also on a FIFO, a device, a folder, or a larger file.
    """
    # Without O_NONBLOCK a FIFO blocks in open itself; on regular files it has no effect.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(f"its name cannot be: {error}") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file: give a file, not a FIFO, device or folder")
        if found.st_size > max_bytes:
            raise OSError(f"it has {found.st_size} bytes, more than the limit of {max_bytes}")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def replace_atomically(path: Path, write: Callable[[str], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then rename it.

    The old file is whole until then, and its permissions are kept; a new file is private to its
    owner. If anything fails the temporary file is removed and the error goes on.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        write(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(name, stat.S_IMODE(path.stat().st_mode))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
