"""SuperPoint and SuperGlue as a visual-SLAM middle-end.

Images in, correspondences and relative poses out.

The core imports without ROS; everything that needs ``rclpy`` lives in :mod:`superglue_ros.ros`.
Start reading at :mod:`superglue_ros.pipeline`.
"""

from pkgutil import extend_path

# The generated messages (superglue_ros.msg) are built into an overlay. This finds them there when
# the code runs from the source tree or from a wheel.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
