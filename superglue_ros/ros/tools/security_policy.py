"""SROS2 policies of the nodes: everything a node publishes, takes, offers and calls.

The policy is read from the graph of the node itself, made with the command line's own parameters
and remappings, so that it names what that node uses and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

from superglue_ros.errors import ConfigError
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import destroy

_VERSION = "0.2.0"  # of the format
_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_DISCOVERY_S = 10.0
_POLL_S = 0.02
# The graph does not depend on the networks: the quickest ones.
_QUICK = ("front_end.name:=sift", "matcher.name:=mutual", "warm_up:=false", "refinement:=none")


@dataclass(frozen=True)
class Interfaces:
    """Fully qualified names of what a node uses, sorted."""

    name: str
    namespace: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    reply: tuple[str, ...]
    request: tuple[str, ...]


def interfaces_of(node: Node) -> Interfaces:
    """What a node uses, of its own and of ROS (parameters, log, life cycle).

    Discovery tells the graph a moment after something was made. Raises :class:`ConfigError` where
    the graph still lacks something of the node's own after ten seconds.
    """
    deadline = time.monotonic() + _DISCOVERY_S
    while True:
        found = _in_graph(node)
        shown = {*found.publish, *found.subscribe, *found.reply, *found.request}
        missing = _made_by(node) - shown
        if not missing:
            return found
        if time.monotonic() > deadline:
            raise ConfigError(
                f"the ROS graph does not show {', '.join(sorted(missing))} of the node: run the "
                f"command again on a less busy machine"
            )
        time.sleep(_POLL_S)


def _init_alone(arguments: Sequence[str]) -> None:
    """Initialise ROS out of sight of other processes: a running node may have the same name."""
    before = os.environ.get(_RANGE)
    os.environ[_RANGE] = "OFF"
    try:
        begin(arguments)
    finally:
        del os.environ[_RANGE]
        if before is not None:
            os.environ[_RANGE] = before


def _made_by(node: Node) -> set[str]:
    """Resolved names of what the node itself made."""
    topics = {one.topic_name for one in (*node.publishers, *node.subscriptions)}
    services = {one.srv_name for one in (*node.services, *node.clients)}
    return topics | {node.resolve_service_name(name) for name in services}


def _in_graph(node: Node) -> Interfaces:
    name, namespace = node.get_name(), node.get_namespace()

    def names(by_node: Callable[[str, str], Any]) -> tuple[str, ...]:
        return tuple(sorted(found for found, _ in by_node(name, namespace)))

    return Interfaces(
        name=name,
        namespace=namespace,
        publish=names(node.get_publisher_names_and_types_by_node),
        subscribe=names(node.get_subscriber_names_and_types_by_node),
        reply=names(node.get_service_names_and_types_by_node),
        request=names(node.get_client_names_and_types_by_node),
    )


def matcher_interfaces(ros_arguments: Sequence[str]) -> Interfaces:
    """What the matcher uses when it is started with these arguments, and active.

    Raises :class:`ConfigError` where it cannot be configured with them.
    """
    from superglue_ros.ros.node import MatcherNode

    quick = [word for value in _QUICK for word in ("-p", value)]
    arguments = ["--ros-args", *ros_arguments, *quick]
    _init_alone(arguments)
    try:
        node = MatcherNode(on_failure=print)
        try:
            success = TransitionCallbackReturn.SUCCESS
            if not (node.trigger_configure() == success == node.trigger_activate()):
                raise ConfigError("the node cannot be configured: its log above says why")
            return interfaces_of(node)
        finally:
            destroy(node)
    finally:
        rclpy.shutdown()


def back_end_interfaces(ros_arguments: Sequence[str]) -> Interfaces:
    """What the example back-end uses when it is started with these arguments."""
    from superglue_ros.ros.bundle_adjuster import BundleAdjusterNode

    arguments = ["--ros-args", *ros_arguments]
    _init_alone(arguments)
    try:
        node = BundleAdjusterNode()
        try:
            return interfaces_of(node)
        finally:
            destroy(node)
    finally:
        rclpy.shutdown()


NODES = {"matcher": matcher_interfaces, "bundle_adjuster": back_end_interfaces}


def policy_xml(used: Interfaces, enclave: str) -> str:
    """The SROS2 policy of an enclave that holds this node."""
    root = ElementTree.Element("policy", version=_VERSION)
    enclaves = ElementTree.SubElement(root, "enclaves")
    profiles = ElementTree.SubElement(
        ElementTree.SubElement(enclaves, "enclave", path=enclave), "profiles"
    )
    profile = ElementTree.SubElement(profiles, "profile", ns=used.namespace, node=used.name)
    for group, one, access, names in (
        ("services", "service", "reply", used.reply),
        ("services", "service", "request", used.request),
        ("topics", "topic", "publish", used.publish),
        ("topics", "topic", "subscribe", used.subscribe),
    ):
        if names:
            parent = ElementTree.SubElement(profile, group, {access: "ALLOW"})
            for name in names:
                ElementTree.SubElement(parent, one).text = name
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root).decode()}\n'
