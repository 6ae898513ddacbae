"""A camera of its own process, to be killed: publishes images with calibration without a pause.

    python camera_process.py FIRST_STAMP MAX_FRAMES

Writes the number of frames published to the standard output, a line for each.
"""

from __future__ import annotations

import sys
import time

import rclpy
from matcher_process import camera_info, image_message, picture
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image


def main() -> None:
    """Publish until killed."""
    first, count = float(sys.argv[1]), int(sys.argv[2])
    rclpy.init()
    node = rclpy.create_node("camera", start_parameter_services=False)
    images = node.create_publisher(Image, "image", QoSProfile(depth=1000))
    infos = node.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1000))
    while not (images.get_subscription_count() and infos.get_subscription_count()):
        time.sleep(0.01)
    for number in range(count):
        at = round(first + 0.1 * number, 3)
        infos.publish(camera_info(at))
        images.publish(image_message(picture(number % 20), at))
        print(number + 1, flush=True)
        time.sleep(0.01)
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    main()
