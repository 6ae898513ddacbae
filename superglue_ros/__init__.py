"""SuperPoint and SuperGlue as a visual-SLAM middle-end: images in, correspondences and relative poses out.

The core imports without ROS; everything that needs ``rclpy`` lives in :mod:`superglue_ros.ros`.
Start reading at :mod:`superglue_ros.pipeline`.
"""

__version__ = "0.1.0"
