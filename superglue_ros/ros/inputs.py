"""The topics of one camera: subscriptions, synchronisation, and warnings when inputs are silent."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from message_filters import Subscriber
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from superglue_ros.data.message_reading import stamp_to_ns
from superglue_ros.msg import Features as FeaturesMessage
from superglue_ros.ros import input_warnings
from superglue_ros.ros.input_health import InputHealth, InputState
from superglue_ros.ros.intake import MAX_SOURCES
from superglue_ros.ros.node_config import NodeConfig
from superglue_ros.ros.qos import LOSSLESS_DEPTH, input_profile, overridable
from superglue_ros.ros.stamp_gaps import StampGaps
from superglue_ros.ros.synchroniser import Synchroniser
from superglue_ros.ros.window import Window
from superglue_ros.types import MAX_NAME


@dataclass(frozen=True, eq=False)
class Bundle:
    """The messages of one image; ``arrived`` is :func:`time.monotonic` when it was complete.

    Of a stereo pair ``image`` and ``camera_info`` are the left ones, ``right_image`` and
    ``right_info`` the right ones.
    """

    camera_index: int
    image: Image | CompressedImage
    camera_info: CameraInfo | None
    keypoints: Any | None
    depth: Image | None
    arrived: float
    right_image: Image | CompressedImage | None = None
    right_info: CameraInfo | None = None
    mask: Image | None = None

    @property
    def size(self) -> int:
        """Bytes of its images and keypoints."""
        images = sum(
            len(i.data) for i in (self.image, self.right_image, self.depth, self.mask) if i
        )
        return images + (_features_size(self.keypoints) if self.keypoints else 0)


@dataclass(frozen=True, eq=False)
class PeerFeatures:
    """A ``Features`` message of another robot; ``arrived`` as in :class:`Bundle`."""

    message: Any
    arrived: float

    @property
    def size(self) -> int:
        """Bytes of its keypoints and descriptors."""
        return _features_size(self.message)


def _features_size(message: Any) -> int:
    return len(message.descriptors) + 32 * len(message.u)  # up to 32 bytes of other columns


class PeerInput:
    """Subscribes to ``peer_features`` and forwards the features of robots other than ``robot``.

    Features without descriptors, such as those of right stereo images, cannot be matched and are
    skipped. A robot that sends only such features causes one warning.
    """

    def __init__(
        self, node: Node, lossless: bool, robot: str, on_features: Callable[[PeerFeatures], None]
    ) -> None:
        self._node = node
        self._robot = robot
        self._on_features = on_features
        self._known: set[str] = set()  # robots that sent descriptors, or were warned about
        self._subscription = node.create_subscription(
            FeaturesMessage,
            "peer_features",
            self._heard,
            input_profile(lossless),
            qos_overriding_options=overridable("lossless" if lossless else None),
        )

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _heard(self, message: Any) -> None:
        robot = message.frame.robot[: MAX_NAME + 1]  # a longer one is refused later on
        if robot == self._robot:
            return  # the robot's own features, if all robots publish to one topic
        if message.descriptor_dim:
            self._on_features(PeerFeatures(message, time.monotonic()))
        elif robot not in self._known and len(self._known) < MAX_SOURCES:
            self._node.get_logger().warning(
                f"the features of robot {robot!r} bring no descriptors and are passed over: set "
                f"outputs.descriptors of its node to float16"
            )
        if len(self._known) < MAX_SOURCES:
            self._known.add(robot)


class _Input:
    """A subscription and what came over it; ``role`` is a field of :class:`Bundle`."""

    def __init__(self, role: str, name: str, kind: type) -> None:
        self.role = role
        self.name = name
        self.kind = kind
        self.topic = name
        self.subscriber: Any = None
        self.one_is_enough = False  # its newest message holds for all images to come
        self.heard: float | None = None
        self.count = 0
        self.lost = 0  # by the middleware's own count
        self.gaps = StampGaps()
        self.window = Window(InputState(topic=name), time.monotonic())
        self.warned = False
        self.warned_of_loss = False
        self.incompatible = ""  # the incompatible QoS policy that a publisher offers

    def hear(self, message: Any) -> None:
        """A message arrived."""
        self.heard = time.monotonic()
        self.count += 1
        self.gaps.add(stamp_to_ns(message.header.stamp))
        self.warned = False

    def lose(self, event: Any) -> None:
        """The middleware found that messages did not arrive (rmw_message_lost_status_t)."""
        self.lost = event.total_count

    @property
    def missing(self) -> int:
        """By either count: gaps show what was never sent, too, but only between what arrives."""
        return max(self.lost, self.gaps.missing)

    def state(self, since: float, clock_ns: int) -> InputState:
        """Now; it is subscribed to ``since``, and the node's clock shows ``clock_ns``."""
        newest = self.gaps.newest_ns
        done = self.one_is_enough and self.heard is not None
        return InputState(
            topic=self.topic,
            one_is_enough=self.one_is_enough,
            heard=self.count,
            lost=self.lost,
            missing=self.missing,
            silent_s=0.0 if done else time.monotonic() - (self.heard or since),
            ahead_s=(newest - clock_ns) * 1e-9 if newest is not None and clock_ns else None,
            period_s=self.gaps.period_s,
        )


class CameraInputs:
    """Subscribes to the topics of one camera and forwards complete bundles.

    ``prefix`` goes before the topic names ("" or "left/"). ``on_bundle`` runs in the subscription's
    callback, under message_filters' lock: it must only store and never raise.
    """

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        on_bundle: Callable[[Bundle], None],
        *,
        camera_index: int = 0,
        prefix: str = "",
    ) -> None:
        self._node = node
        self._config = config
        self._camera_index = camera_index
        self._on_bundle = on_bundle
        self._latest_infos: dict[str, CameraInfo] = {}
        self._before_info = 0
        self._started = time.monotonic()
        self._last_set = self._started
        self._never_meet_warned = False
        lossless = config.intake.mode == "lossless"
        self._inputs = _synchronised_inputs(config)
        self._joined = len(self._inputs)  # the inputs above, which are synchronised by stamp
        self._synchroniser = Synchroniser(
            self._joined,
            self._complete,
            slop=config.sync.slop if config.sync.mode == "approximate" else None,
            # Lossless: a burst on one input must not push out messages that wait for the other.
            queue=LOSSLESS_DEPTH if lossless else config.sync.queue,
        )
        for index, item in enumerate(self._inputs):
            self._subscribe(item, prefix, functools.partial(self._heard, index))
        if config.inputs.camera_info == "latest":
            for item in _calibrations(config):
                item.one_is_enough = True
                self._inputs.append(item)
                self._subscribe(item, prefix, functools.partial(self._heard_latest_info, item))

    @property
    def unsynchronised(self) -> int:
        """Number of messages that were never synchronised."""
        return self._synchroniser.unsynchronised + self._before_info

    @property
    def missing(self) -> int:
        """Number of messages that were lost on the way, or are missing between stamps."""
        return sum(item.missing for item in self._inputs)

    def destroy(self) -> None:
        """End the subscriptions."""
        for item in self._inputs:
            self._node.destroy_subscription(item.subscriber.sub)
        self._synchroniser.clear()

    def look(self, seconds: float) -> list[InputHealth]:
        """How each input did over the last ``seconds``. Call about once a second."""
        now, clock_ns = time.monotonic(), self._node.get_clock().now().nanoseconds
        found = []
        for item in self._inputs:
            state = item.state(self._started, clock_ns)
            found.append(InputHealth.over(state, *item.window.look(state, now, seconds)))
        return found

    def warnings(self, healths: Sequence[InputHealth], silent_after: float) -> list[str]:
        """New warnings about what :meth:`look` found, repeated only once their cause has gone."""
        now = time.monotonic()
        found, silent = [], False
        for item, health in zip(self._inputs, healths, strict=True):
            since = health.state.silent_s
            if since > silent_after:
                silent = True
                if not item.warned:
                    item.warned = True
                    found.append(input_warnings.silent(self._node, item, health, self._config))
            elif health.lossy and not item.warned_of_loss:
                found.append(input_warnings.lossy(self._node, item, health, self._config))
            item.warned_of_loss = health.lossy
        if silent or self._joined < 2 or self._never_meet_warned:
            return found
        if now - self._last_set > silent_after and now - self._started > silent_after:
            self._never_meet_warned = True
            found.append(self._never_meet_warning())
        return found

    def _subscribe(self, item: _Input, prefix: str, callback: Callable[[Any], None]) -> None:
        topic = prefix + item.name + "/compressed" * (item.kind is CompressedImage)
        item.topic = self._node.resolve_topic_name(topic)
        lossless = self._config.intake.mode == "lossless"
        # The profile is passed explicitly: the Subscriber's own default is reliable, which never
        # matches a best-effort camera.
        item.subscriber = Subscriber(
            self._node,
            item.kind,
            topic,
            qos_profile=input_profile(lossless),
            qos_overriding_options=overridable("lossless" if lossless else None),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=functools.partial(self._incompatible, item),
                message_lost=item.lose,
            ),
        )
        item.subscriber.registerCallback(callback)

    def _heard(self, index: int, message: Any) -> None:
        self._inputs[index].hear(message)
        self._synchroniser.add(index, message)

    def _heard_latest_info(self, item: _Input, message: CameraInfo) -> None:
        item.hear(message)
        self._latest_infos[item.role] = message

    def _complete(self, messages: Sequence[Any]) -> None:
        self._last_set = time.monotonic()
        self._never_meet_warned = False
        if len(self._latest_infos) < len(self._inputs) - self._joined:
            # Not matched without calibration: as a keyframe it would give no poses later either.
            self._before_info += 1
            return
        roles = (item.role for item in self._inputs[: self._joined])
        found = {**self._latest_infos, **dict(zip(roles, messages, strict=True))}
        self._on_bundle(
            Bundle(
                camera_index=self._camera_index,
                image=found["image"],
                camera_info=found.get("camera_info"),
                keypoints=found.get("keypoints"),
                depth=found.get("depth"),
                arrived=self._last_set,
                right_image=found.get("right_image"),
                right_info=found.get("right_info"),
                mask=found.get("mask"),
            )
        )

    def _incompatible(self, item: _Input, event: Any) -> None:
        policy = str(qos_policy_name_from_kind(event.last_policy_kind)).lower()
        if item.incompatible == policy:
            return
        item.incompatible = policy
        self._node.get_logger().warning(
            input_warnings.incompatible(item.topic, policy, self._config)
        )

    def _never_meet_warning(self) -> str:
        stamps = ", ".join(
            f"{item.name} {(self._synchroniser.newest_ns(index) or 0) * 1e-9:.6f}"
            for index, item in enumerate(self._inputs[: self._joined])
        )
        fix = (
            "publish them with equal stamps, or set sync.mode to approximate"
            if self._config.sync.mode == "exact"
            else "raise sync.slop"
        )
        return f"the stamps of the inputs never meet (newest: {stamps}): {fix}"


def input_names(config: NodeConfig) -> list[str]:
    """Names of the topics that a camera with these settings listens to."""
    inputs = _synchronised_inputs(config)
    if config.inputs.camera_info == "latest":
        inputs += _calibrations(config)
    return [item.name for item in inputs]


def _synchronised_inputs(config: NodeConfig) -> list[_Input]:
    """The inputs to synchronise by stamp, the image first."""
    image = CompressedImage if config.image_transport == "compressed" else Image
    stereo = config.inputs.stereo
    inputs = [_Input("image", "left/image_rect" if stereo else "image", image)]
    if stereo:
        inputs.append(_Input("right_image", "right/image_rect", image))
    if config.inputs.camera_info == "synchronised":
        inputs += _calibrations(config)
    if config.inputs.keypoints:
        inputs.append(_Input("keypoints", "keypoints", FeaturesMessage))
    if config.inputs.depth:
        inputs.append(_Input("depth", "depth", Image))
    if config.inputs.mask:
        inputs.append(_Input("mask", "left/mask" if stereo else "mask", Image))
    return inputs


def _calibrations(config: NodeConfig) -> list[_Input]:
    if not config.inputs.stereo:
        return [_Input("camera_info", "camera_info", CameraInfo)]
    return [
        _Input("camera_info", "left/camera_info", CameraInfo),
        _Input("right_info", "right/camera_info", CameraInfo),
    ]
