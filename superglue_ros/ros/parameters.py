"""The node's parameters: the settings of the core and of the node, declared once.

A parameter has the dotted name, the default, the description and the range of its setting. A change
is checked as a whole and without side effects by :func:`check_change`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError
from superglue_ros.ros.node_config import NodeConfig
from superglue_ros.settings import from_flat, leaves

DETECTOR = "matcher.detector"
"""The only parameter that is no setting: it tells, see :func:`declare_detector`."""


@dataclass(frozen=True)
class Settings:
    """The values of all parameters: ``core`` for the pipeline, ``node`` for the node around it."""

    core: Config
    node: NodeConfig


def all_settings() -> Iterator[tuple[str, dataclasses.Field[Any], type]]:
    """Every parameter as (name, field with its metadata, type)."""
    yield from leaves(NodeConfig)
    yield from leaves(Config)


def descriptor(item: dataclasses.Field[Any], kind: type) -> ParameterDescriptor:
    """What ``ros2 param describe`` shows."""
    meta = item.metadata
    constraints = []
    if meta["choices"]:
        constraints.append("one of: " + ", ".join(meta["choices"]))
    if meta["fixed"]:
        constraints.append("can only be changed while the node is unconfigured")
    result = ParameterDescriptor(
        description=meta["description"],
        additional_constraints="; ".join(constraints),
        # ROS's static typing would refuse a whole number before in_declared_types makes it a float.
        dynamic_typing=kind is float,
    )
    if meta["low"] is not None and kind is float:
        result.floating_point_range = [
            FloatingPointRange(
                from_value=float(meta["low"]), to_value=float(meta["high"]), step=0.0
            )
        ]
    elif meta["low"] is not None:
        result.integer_range = [
            IntegerRange(from_value=int(meta["low"]), to_value=int(meta["high"]), step=1)
        ]
    return result


def declare(node: Node) -> dict[str, str]:
    """Declare all parameters; returns the errors of initial values, by parameter name.

    An invalid value is replaced by the default, so that the node starts and can be corrected.
    Until then it must not be configured.
    """
    problems = {}
    for name, item, kind in all_settings():
        try:
            given = node.declare_parameter(name, item.default, descriptor(item, kind))
        except (InvalidParameterValueException, InvalidParameterTypeException) as error:
            problems[name] = str(error)
            node.declare_parameter(name, item.default, descriptor(item, kind), ignore_override=True)
            continue
        as_declared = in_declared_types([given])
        if (
            as_declared != [given]
            and not (result := node.set_parameters(as_declared)[0]).successful
        ):
            problems[name] = result.reason
            node.set_parameters([Parameter(name, value=item.default)])
    return problems


def in_declared_types(parameters: Sequence[Parameter[Any]]) -> list[Parameter[Any]]:
    """Whole numbers as floats where a parameter is one: people and YAML write 1 for 1.0."""
    kinds = {name: kind for name, _, kind in all_settings()}
    return [
        Parameter(one.name, Parameter.Type.DOUBLE, float(one.value))
        if kinds.get(one.name) is float and one.type_ is Parameter.Type.INTEGER
        else one
        for one in parameters
    ]


def read(node: Node) -> Settings:
    """The current values. Raises :class:`ConfigError` naming the parameter at fault."""
    return settings_from_flat(
        {name: node.get_parameter(name).value for name, _, _ in all_settings()}
    )


def settings_from_flat(values: Mapping[str, Any]) -> Settings:
    """Settings from dotted names. Raises :class:`ConfigError`."""
    node_names = {name for name, _, _ in leaves(NodeConfig)}
    return Settings(
        core=from_flat(Config, {k: v for k, v in values.items() if k not in node_names}),
        node=from_flat(NodeConfig, {k: v for k, v in values.items() if k in node_names}),
    )


def declare_detector(node: Node) -> None:
    """Declare the parameter that tells others which descriptors the matcher takes."""
    node.declare_parameter(
        DETECTOR,
        "",
        ParameterDescriptor(
            description="Kind of descriptors that the matcher takes: what an outside front-end "
            "writes to `detector` of its Features. Empty while the node is unconfigured.",
            additional_constraints="set by the node",
        ),
        ignore_override=True,
    )


def check_change(
    node: Node, changes: Iterable[Parameter], *, configured: bool, detector: str = ""
) -> SetParametersResult:
    """Check ``changes`` without applying them; ``detector``: what the node itself sets."""
    fixed = {name: item.metadata["fixed"] for name, item, _ in all_settings()}
    values = {name: node.get_parameter(name).value for name in fixed if node.has_parameter(name)}
    for change in changes:
        if change.name == DETECTOR and change.value != detector:
            return SetParametersResult(
                successful=False,
                reason=f"{DETECTOR} is set by the node: choose a matcher or weights made for other "
                f"descriptors",
            )
        if change.name not in fixed:
            continue  # ROS's own, for example use_sim_time
        if configured and fixed[change.name] and change.value != values[change.name]:
            return SetParametersResult(
                successful=False,
                reason=f"{change.name} cannot be changed while the node is configured: "
                f"deactivate and clean up first",
            )
        values[change.name] = change.value
    try:
        settings_from_flat(values)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def unknown_name(name: str) -> str:
    """The warning for a parameter that the node does not have."""
    near = difflib.get_close_matches(name, [known for known, _, _ in all_settings()], n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"parameter {name} is unknown and has no effect{hint}"
