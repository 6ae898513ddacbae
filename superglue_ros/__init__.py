"""SuperPoint and SuperGlue as a visual-SLAM middle-end.

Images in, correspondences and relative poses out.

The core imports without ROS; everything that needs ``rclpy`` lives in :mod:`superglue_ros.ros`.
Start reading at :mod:`superglue_ros.pipeline`.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superglue_ros.image_pairs.matching import ImageMatcher as ImageMatcher
    from superglue_ros.image_pairs.matching import match as match

# The generated messages (superglue_ros.msg) are built into an overlay. This finds them there when
# the code runs from the source tree or from a wheel.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``match`` and ``ImageMatcher``, imported (with torch) when they are first used."""
    if name in ("match", "ImageMatcher"):
        from superglue_ros.image_pairs import matching

        return getattr(matching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
