"""A rectified stereo camera in the rendered room, for tests: images, depth and motion are exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from superglue_ros.geometry.camera import Camera
from superglue_ros.synthetic.demo_room import demo_room
from superglue_ros.synthetic.rendering import Scene, render
from superglue_ros.synthetic.rooms import look_at
from superglue_ros.types import Frame, FrameId, RightView

WIDTH, HEIGHT = 320, 240
FOCAL, BASELINE = 250.0, 0.15
MATRIX = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
CAMERA = Camera(WIDTH, HEIGHT, MATRIX, np.zeros(0))
P_LEFT = np.column_stack([MATRIX, np.zeros(3)]).ravel()
P_RIGHT = np.column_stack([MATRIX, [-FOCAL * BASELINE, 0, 0]]).ravel()


@dataclass(frozen=True, eq=False)
class StereoView:
    """Both images (H, W) uint8, the left one's depth (H, W) metres and pose ``T_world_left``."""

    left: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    pose: np.ndarray

    def frame(self, number: int, stamp_ns: int) -> Frame:
        """As the pipeline takes it; the right image has the number ``number + 1``."""
        right = RightView(
            FrameId(number + 1, stamp_ns, "right", camera_index=1), self.right, CAMERA, BASELINE
        )
        left = FrameId(number, stamp_ns, "left")
        return Frame(left, self.left, CAMERA, rectified=True, right=right)


@cache
def room() -> Scene:
    return demo_room()


@cache
def view(number: int) -> StereoView:
    """The camera at place ``number`` of a straight line, 0.1 m a step, looking into the room."""
    along = np.array([0.08, 0.05, 0.0]) * number
    pose = look_at(np.array([1.5, 0.8, 1.4]) + along, np.array([2.6, 4.0, 1.2]) + along)
    beside = pose.copy()
    beside[:3, 3] += BASELINE * pose[:3, 0]
    (left, depth), (right, _) = (
        render(room(), MATRIX, WIDTH, HEIGHT, each) for each in (pose, beside)
    )
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (left, right)]
    return StereoView(grey[0], grey[1], depth, pose)


def motion(reference: int, query: int) -> np.ndarray:
    """``T_ref_query`` (4, 4) of two places, metres."""
    return np.linalg.inv(view(reference).pose) @ view(query).pose
