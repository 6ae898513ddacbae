"""Where the networks run."""

from __future__ import annotations

import torch

from superglue_ros.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """``auto`` selects the GPU if there is one; anything else is a torch device name.

    Raises :class:`ConfigError` if the name is unknown or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used ({first_line}): set auto or cpu"
        ) from error
    return device
