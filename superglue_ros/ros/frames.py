"""Convert a bundle of messages to a numbered frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from superglue_ros.data.message_reading import stamp_to_ns
from superglue_ros.errors import CalibrationError, IdentifierError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.stereo import stereo_rig
from superglue_ros.ros import convert, sensor_messages
from superglue_ros.ros.announcer import Announcer
from superglue_ros.ros.inputs import Bundle
from superglue_ros.ros.masks import StaticMask, usable_pixels
from superglue_ros.ros.parameters import Settings
from superglue_ros.types import (
    MAX_NAME,
    MAX_STAMP_NS,
    Features,
    Frame,
    FrameId,
    RightView,
    check_name,
)


class FrameNumbers:
    """Numbers frames from 1 over the life of the node; 0 means no frame."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """A new, unused number."""
        self.last += 1
        return self.last

    def reserve(self, number: int) -> None:
        """Continue after ``number``, which is in use already."""
        self.last = max(self.last, number)


class FrameMaker:
    """Names images and turns their messages into frames. ``masks``: the static one per camera."""

    def __init__(
        self,
        settings: Settings,
        numbers: FrameNumbers,
        announcer: Announcer,
        masks: Sequence[StaticMask | None],
    ) -> None:
        self.settings = settings
        self._masks = masks
        self.numbers = numbers
        self._announcer = announcer

    def name(self, header: Header, camera_index: int) -> FrameId:
        """A new name for the image with that header.

        Always one that a message can carry, so that a frame can be refused by name;
        :meth:`frame` refuses where the header's own is none.
        """
        return FrameId(
            id=self.numbers.next(),
            stamp_ns=min(stamp_to_ns(header.stamp), MAX_STAMP_NS),
            frame_id=header.frame_id[:MAX_NAME],
            robot=self.settings.core.robot,
            camera_index=camera_index,
        )

    def frame(self, bundle: Bundle, frame_id: FrameId, *, of_a_camera: bool = True) -> Frame:
        """The bundle as a frame. Raises :class:`SuperglueError`.

        Without ``of_a_camera`` the image is any, and no camera's static mask holds for it.
        """
        node = self.settings.node
        _check_header(bundle.image.header)
        image = self._grey(bundle.image)
        height, width = image.shape
        camera, rectified = None, node.inputs.rectified or node.inputs.stereo
        if bundle.camera_info is not None:
            camera = sensor_messages.camera_info_to_camera(
                bundle.camera_info, width, height, rectified
            )
            if camera is None and bundle.right_image is None:
                self._announcer.once(
                    "uncalibrated",
                    f"camera_info of {frame_id.frame_id!r} is uncalibrated (K[0] = 0): "
                    f"matches yes, poses no. Calibrate the camera",
                )
        depth = None
        if bundle.depth is not None:
            depth = sensor_messages.depth_to_metres(bundle.depth, width, height)
        keypoints = self._keypoints(bundle, width, height)
        right = self._right_view(bundle, camera)
        static = self._masks[bundle.camera_index] if of_a_camera else None
        usable = usable_pixels(bundle.mask, static, width, height)
        if usable is not None and not usable.any():
            self._announcer.throttled(
                "nothing usable",
                "the mask leaves no pixel of the image: nonzero pixels are those to be used",
            )
        return Frame(
            id=frame_id,
            image=image,
            camera=camera,
            keypoints=keypoints,
            depth=depth,
            rectified=rectified,
            right=right,
            usable=usable,
        )

    def _keypoints(self, bundle: Bundle, width: int, height: int) -> Features | None:
        """Keypoints that an external front-end sent with the image."""
        if bundle.keypoints is None:
            return None
        limit = self.settings.core.front_end.max_keypoints
        keypoints = convert.features_from_message(bundle.keypoints, width, height)
        if len(keypoints) > limit:
            self._announcer.throttled(
                "keypoints cut",
                f"{len(keypoints)} keypoints came, the best {limit} are used: "
                f"send fewer or raise front_end.max_keypoints",
            )
        return keypoints

    def _right_view(self, bundle: Bundle, left: Camera | None) -> RightView | None:
        """The right image of a stereo pair with its baseline. Raises :class:`SuperglueError`."""
        if bundle.right_image is None or bundle.right_info is None:
            return None
        image = self._grey(bundle.right_image)
        height, width = image.shape
        camera = sensor_messages.camera_info_to_camera(
            bundle.right_info, width, height, rectified=True
        )
        if left is None or camera is None:
            side = "left" if left is None else "right"
            raise CalibrationError(
                f"{side}/camera_info is uncalibrated (K[0] = 0): calibrate the stereo pair"
            )
        rig = stereo_rig(left, camera, bundle.right_info.p)
        # The right cameras are numbered after all left ones.
        cameras = len(self.settings.node.camera_names)
        frame_id = self.name(bundle.right_image.header, cameras + bundle.camera_index)
        return RightView(frame_id, image, camera, rig.baseline)

    def _grey(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        limit = self.settings.node.limits.max_pixels
        if isinstance(message, CompressedImage):
            return sensor_messages.compressed_to_grey(message, limit)
        return sensor_messages.image_to_grey(message, limit)


def _check_header(header: Header) -> None:
    check_name(header.frame_id, "frame_id of the image")
    if header.stamp.nanosec >= 1_000_000_000:
        raise IdentifierError(
            f"the image's stamp has {header.stamp.nanosec} nanoseconds: they are below 10^9"
        )
