"""How far from where depth and pose say a view shows what another does."""

import cv2
import numpy as np

from superglue_ros.geometry.depth_overlap import project_depth
from superglue_ros.synthetic.worlds.exposure import expose
from superglue_ros.synthetic.worlds.renderer import Light

MATRIX = np.array([[500.0, 0, 320.4], [0, 480.0, 236.7], [0, 0, 1]])  # of no symmetry


def reprojection_errors(renderer, world, first, second):
    """Pixels between a corner's place by depth and pose, and by Lucas-Kanade from there; (N,)."""
    renderer.load(world)
    light = Light(ambient=0.3)
    grey0, grey1 = (
        expose(renderer.radiance(MATRIX, pose, light), 0.9, 1.0) for pose in (first, second)
    )
    depth0, depth1 = (renderer.depth(MATRIX, pose) for pose in (first, second))
    corners = cv2.goodFeaturesToTrack(grey0, 400, 0.01, 8).reshape(-1, 2)
    seen = project_depth(corners, depth0, depth1, MATRIX, MATRIX, np.linalg.inv(second) @ first)
    good = ~seen.hidden & ~seen.unknown
    start = seen.points[good].astype(np.float32)
    # The first image as the second camera would see it, so that shapes are the same.
    x, y = np.meshgrid(np.arange(640.0), np.arange(480.0))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    back = project_depth(grid, depth1, depth0, MATRIX, MATRIX, np.linalg.inv(first) @ second)
    maps = np.nan_to_num(back.points, nan=-1).reshape(480, 640, 2).astype(np.float32)
    warped = cv2.remap(grey0, maps, None, cv2.INTER_LINEAR)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        warped, grey1, start[:, None], start[:, None].copy(), winSize=(11, 11), maxLevel=0,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return np.linalg.norm(found[:, 0] - start, axis=1)[status[:, 0] > 0]
