"""The node's publishers of the results of a frame."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from superglue_ros.drawing.matches import draw_matches
from superglue_ros.mapping.verification import FramePair
from superglue_ros.msg import Features, MatcherStatus, Matches, RelativePose
from superglue_ros.pipeline import FrameResult
from superglue_ros.ros import convert, sensor_messages
from superglue_ros.ros.qos import output_profile, overridable
from superglue_ros.types import Frame, FrameId

# Names that say what they are; others are private to the node. Those of a camera alone, whose
# messages do not name it, begin with its name where there are several.
TOPICS: dict[str, type] = {
    "matches": Matches,
    "relative_pose": RelativePose,
    "relocalised_pose": PoseWithCovarianceStamped,
    "~/features": Features,
    "~/matches_image": Image,
    "~/status": MatcherStatus,
}
OF_A_CAMERA = ("relocalised_pose",)
_PICTURES_KEPT = 16
_DELIVERY_SECONDS = 1.0  # a subscriber that died without a word holds nothing up for longer


class Outputs:
    """Lifecycle publishers: silent while the node is inactive.

    ``cameras``: their names, one empty where there is one camera.
    """

    def __init__(self, node: LifecycleNode, cameras: Sequence[str]) -> None:
        self._node = node
        self._prefixes = [f"{name}/" if name else "" for name in cameras]
        named = {topic: kind for topic, kind in TOPICS.items() if topic not in OF_A_CAMERA}
        named |= {
            f"{prefix}{topic}": TOPICS[topic] for topic in OF_A_CAMERA for prefix in self._prefixes
        }
        self._publishers: dict[str, Any] = {
            topic: node.create_lifecycle_publisher(
                kind, topic, output_profile(), qos_overriding_options=overridable()
            )
            for topic, kind in named.items()
        }
        self._images: OrderedDict[FrameId, Any] = OrderedDict()

    def publish_result(
        self, frame: Frame, result: FrameResult, descriptors: str, map_frame: str
    ) -> None:
        """Features, then every pair's matches and pose, also empty and rejected ones.

        Of a stereo pair the right image's features too, without descriptors, and their matches. The
        pose in the TF frame ``map_frame``, if there is one.
        """
        self._publish(
            "~/features",
            convert.features_to_message(
                result.features,
                frame.id,
                frame.rectified,
                descriptors,
                frame.camera,
                result.depth,
                result.depth_sigma,
            ),
        )
        if frame.right is not None and result.right_features is not None:
            right = convert.features_to_message(
                result.right_features, frame.right.id, True, camera=frame.right.camera
            )
            self._publish("~/features", right)
        self.publish_pairs(result.pairs)
        if result.stereo is not None:
            self.publish_pairs([result.stereo])
        if result.map_pose is not None:
            self._publish(
                f"{self._prefixes[frame.id.camera_index]}relocalised_pose",
                convert.map_pose_to_message(result.map_pose, frame.id, map_frame),
            )
        if result.pairs and self._publishers["~/matches_image"].get_subscription_count():
            self._publish_picture(frame, result.pairs[0])
        self._remember(frame, result.is_keyframe)

    def publish_pairs(self, pairs: Sequence[FramePair]) -> None:
        """Matches and pose of every pair, also empty and rejected ones."""
        for pair in pairs:
            self._publish("matches", convert.matches_to_message(pair.matches))
            self._publish("relative_pose", convert.pose_to_message(pair.pose))

    def publish_refusal(self, frame: FrameId) -> None:
        """Matches with status ERROR, so that no subscriber waits for a frame that was refused."""
        self._publish("matches", convert.error_to_message(frame))

    def publish_status(self, status: MatcherStatus) -> None:
        """Publish the outcome of the last frame."""
        self._publish("~/status", status)

    def forget_images(self) -> None:
        """Drop the pictures kept for ``~/matches_image``."""
        self._images.clear()

    def destroy(self) -> None:
        """End the publishers, once the subscribers have what was published last."""
        deadline = time.monotonic() + _DELIVERY_SECONDS
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, deadline - time.monotonic())))
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def _publish(self, topic: str, message: Any) -> None:
        self._publishers[topic].publish(message)

    def _publish_picture(self, frame: Frame, pair: FramePair) -> None:
        reference = self._images.get(pair.matches.reference)
        if reference is None:
            return  # the keyframe's picture is no longer kept
        picture = draw_matches(reference, frame.image, pair.matches)
        self._publish("~/matches_image", sensor_messages.image_to_message(picture, frame.id))

    def _remember(self, frame: Frame, is_keyframe: bool) -> None:
        """Keep the picture of a keyframe; at most a few, the oldest goes first."""
        if not is_keyframe:
            return
        self._images[frame.id] = frame.image
        while len(self._images) > _PICTURES_KEPT:
            self._images.popitem(last=False)
