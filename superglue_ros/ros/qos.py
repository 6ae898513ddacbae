"""Quality of service of the node's topics; every profile can be overridden by parameter.

``qos_overrides.<topic>.<subscription|publisher>.<history|depth|reliability|durability>``, for
lossless inputs ``subscription_lossless``. A new profile is made for every use: rclpy writes
the overrides into it.
"""

from __future__ import annotations

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

SENSOR_DEPTH = 5
LOSSLESS_DEPTH = 1000  # for bursts only; frames wait for the networks in the intake
OUTPUT_DEPTH = 100


def input_profile(lossless: bool) -> QoSProfile:
    """Sensor data: receives from reliable and best-effort publishers.

    ``lossless``: reliable and deep, so that the transport drops nothing; it does not receive from
    best-effort publishers.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=LOSSLESS_DEPTH if lossless else SENSOR_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if lossless else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def output_profile() -> QoSProfile:
    """Reliable, keep last: a briefly busy back-end loses no message."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=OUTPUT_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


def overridable(entity: str | None = None) -> QoSOverridingOptions:
    """Declares the override parameters with the topic; ``entity`` is added to their name.

    They keep the profile of their first use for the life of the process: another profile needs
    another name.
    """
    return QoSOverridingOptions(
        entity_id=entity,
        policy_kinds=(
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        ),
    )
