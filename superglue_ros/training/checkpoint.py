"""Checkpoints: written atomically, read strictly.

A full disk or a killed process leaves the previous checkpoint intact: write to a temporary file in
the same folder, flush, rename.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from superglue_ros.errors import DataError, WeightsError

FORMAT = 1
WEIGHTS = "weights.safetensors"
"""The file of a run that holds its weights, complete at any time."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically; raises :class:`DataError` on failure."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error.strerror}): make room; the file it had is untouched"
        ) from error


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (tensors and plain values) as a checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, architecture: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of networks with this ``architecture``.

    Raises :class:`WeightsError` where it is missing, damaged, or of another architecture.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises any exception on other bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"checkpoint {path} cannot be read ({reason}): start without it, or from another one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WeightsError(f"{path} is no checkpoint of this trainer: give one it wrote")
    found = content.get("architecture")
    changed = _changed(found if isinstance(found, dict) else {}, architecture)
    if changed:
        raise WeightsError(
            f"checkpoint {path} is of another architecture ({'; '.join(changed)}): use its recipe, "
            f"or another output folder"
        )
    return content


def _changed(found: dict[str, Any], architecture: dict[str, Any]) -> list[str]:
    """How ``architecture`` differs from the one that was ``found``, one text for each value.

    A value that was not there when the checkpoint was written is an option that came later: it is
    off in that checkpoint (``False``, 0 or empty).
    """
    known = {key: type(value)() for key, value in architecture.items()} | found
    return [
        f"{key} is {value}, the recipe says {architecture.get(key)}"
        for key, value in known.items()
        if value != architecture.get(key)
    ]
