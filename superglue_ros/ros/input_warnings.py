"""What the log says about an input that gives nothing or too little, and what helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo

from superglue_ros.ros.input_health import InputHealth
from superglue_ros.ros.node_config import NodeConfig

_FAST_DDS = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp")
_BUFFER = Path("/proc/sys/net/core/rmem_max")


def override_key(topic: str, config: NodeConfig, policy: str) -> str:
    """The parameter that changes a policy of an input's subscription; ``topic`` after remapping."""
    kind = "subscription" + "_lossless" * (config.intake.mode == "lossless")
    return f"qos_overrides.{topic}.{kind}.{policy}"


def incompatible(topic: str, policy: str, config: NodeConfig) -> str:
    """A publisher offers less than the subscription asks for."""
    return (
        f"a publisher of {topic} offers a {policy} that does not fit: nothing comes from it. Set "
        f"{override_key(topic, config, policy)} to what the publisher offers"
    )


def silent(node: Node, item: Any, health: InputHealth, config: NodeConfig) -> str:
    """An input gives nothing; ``item`` is one of :class:`superglue_ros.ros.inputs.CameraInputs`."""
    if not node.count_publishers(item.topic):
        cause = "it has no publisher; check its name (ros2 topic list, remapping, namespace)"
    elif item.incompatible:
        cause = f"its publisher's {item.incompatible} does not fit"
    elif health.lost:
        against = _against_loss(node, item, config)
        cause = f"{health.lost} messages were lost on the way. {against}"
    else:
        cause = "its publisher is silent"
        fast_dds = get_rmw_implementation_identifier() in _FAST_DDS
        if fast_dds and item.kind is not CameraInfo:
            cause += (
                ". If it is not, restart it: a subscriber of it that was killed may have left no "
                "room for images in its shared memory"
            )
    text = f"no {item.name} on {item.topic} for {health.state.silent_s:.0f} s: {cause}"
    if item.role == "right_image":
        text += (
            ". No left image is matched without its right one; set inputs.stereo to false to go on "
            "with one camera"
        )
    if item.kind is CameraInfo:
        text += (
            ". No image is matched without its calibration; set inputs.camera_info to latest if it "
            "comes rarely"
        )
        text += "" if config.inputs.stereo else ", or to none for matches without poses"
    return text


def lossy(node: Node, item: Any, health: InputHealth, config: NodeConfig) -> str:
    """Many messages of an input are missing."""
    return (
        f"{health.missing} of {health.missing + health.heard} messages of {item.topic} are missing "
        f"in the last {health.seconds:.0f} s, {health.lost} of them lost on the way. "
        f"{_against_loss(node, item, config)}"
    )


def _against_loss(node: Node, item: Any, config: NodeConfig) -> str:
    """Where messages may be lost, by the QoS of both sides, and the setting against it."""
    subscription = item.subscriber.sub
    if subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
        return (
            f"The subscription is reliable: the publisher leaves them out, or they are overwritten "
            f"before they are taken. Start with a larger "
            f"{override_key(item.topic, config, 'depth')} (now {subscription.qos_profile.depth})"
        )
    offered = {
        info.qos_profile.reliability for info in node.get_publishers_info_by_topic(item.topic)
    }
    key = override_key(item.topic, config, "reliability")
    if offered == {ReliabilityPolicy.RELIABLE}:
        return f"Best effort loses what does not fit into buffers: start with {key} = reliable"
    size = f" (now {_BUFFER.read_text(encoding='ascii').strip()} bytes)" if _BUFFER.exists() else ""
    return (
        f"Publisher and subscription are best effort: a large message is lost with any of its "
        f"fragments. Raise net.core.rmem_max{size} and net.ipv4.ipfrag_high_thresh, send "
        f"compressed images, or let the publisher be reliable and start with {key} = reliable"
    )
