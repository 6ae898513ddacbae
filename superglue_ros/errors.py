"""Errors that name the input at fault and how to fix it.

All derive from :class:`SuperglueError`, so a caller can refuse one bad frame
and go on with the next.
"""

LONGEST_MESSAGE = 1500
"""Characters: an error may quote what somebody else wrote, at any length."""


class SuperglueError(Exception):
    """Base of every error this package raises on purpose."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ..."


class ConfigError(SuperglueError, ValueError):
    """A configuration key is unknown, of the wrong type or out of range."""


class ImageError(SuperglueError, ValueError):
    """An image is empty, malformed, too large or in an unknown encoding."""


class CalibrationError(SuperglueError, ValueError):
    """Camera intrinsics are missing, not finite, or made for another image size."""


class FeaturesError(SuperglueError, ValueError):
    """Keypoints or descriptors are not finite, out of the image, or inconsistent in shape."""


class IdentifierError(SuperglueError, ValueError):
    """A name, number or stamp from outside is of another type, out of range, or too long."""


class DescriptorKindError(FeaturesError):
    """Descriptors are of another network, or another size, than the matcher was made for."""


class BusyError(SuperglueError):
    """More requests wait than are taken: try again when one of them is answered."""


class WeightsError(SuperglueError, ValueError):
    """A weights file is missing, damaged, of another architecture, or of an unknown layout."""


class DataError(SuperglueError, ValueError):
    """A data set, bag, pairs file or ground-truth file is missing, malformed or inconsistent."""
