"""Parameters: declared from the settings, described, checked, and taking effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import Matcher  # noqa: E402
from rcl_interfaces.msg import ParameterType  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from superglue_ros.config import Config  # noqa: E402
from superglue_ros.msg import Matches  # noqa: E402
from superglue_ros.ros import parameters  # noqa: E402
from superglue_ros.ros.node_config import NodeConfig  # noqa: E402
from superglue_ros.settings import leaves  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def context(domain: int) -> Iterator[rclpy.Context]:
    """One for the nodes of all tests: they come and go, its participant of DDS stays.

    Fast DDS may hang where a participant is destroyed while it is told of another
    (docs/reliability.md), as in a test of a tenth of a second.
    """
    made = rclpy.Context()
    rclpy.init(context=made)
    stays = rclpy.create_node("stays", context=made)
    yield made
    stays.destroy_node()
    made.try_shutdown()


@pytest.fixture
def make_node(context: rclpy.Context) -> Iterator[Callable[..., Any]]:
    nodes = []

    def make(**values: Any) -> Any:
        overrides = [Parameter(n.replace("__", "."), value=v) for n, v in values.items()]
        nodes.append(
            rclpy.create_node(
                "parameters",
                context=context,
                parameter_overrides=overrides,
                start_parameter_services=False,
            )
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_names_of_core_and_node_do_not_clash() -> None:
    core = {name for name, _, _ in leaves(Config)}
    node = {name for name, _, _ in leaves(NodeConfig)}
    assert not core & node
    assert not {n.split(".")[0] for n in core} & {n.split(".")[0] for n in node}


def test_defaults_are_those_of_the_settings(make_node: Callable[..., Any]) -> None:
    node = make_node()
    assert parameters.declare(node) == {}
    assert parameters.read(node) == parameters.Settings(Config(), NodeConfig())


def test_every_parameter_is_described_with_its_range(make_node: Callable[..., Any]) -> None:
    node = make_node()
    parameters.declare(node)
    for name, item, kind in parameters.all_settings():
        described = node.describe_parameter(name)
        assert described.description.endswith("."), name
        assert bool(described.floating_point_range) == (kind is float), name
        assert bool(described.integer_range) == (kind is int), name
        for choice in item.metadata["choices"]:
            assert choice in described.additional_constraints, name
        if item.metadata["fixed"]:
            assert "unconfigured" in described.additional_constraints, name


def test_values_at_start(make_node: Callable[..., Any]) -> None:
    node = make_node(geometry__threshold_px=2, matcher__name="ratio", geometry__seed=-1)
    problems = parameters.declare(node)
    assert list(problems) == ["geometry.seed"]
    assert node.get_parameter("geometry.threshold_px").type_ is Parameter.Type.DOUBLE
    settings = parameters.read(node)
    assert settings.core.geometry.threshold_px == 2.0  # a whole number is a float too
    assert settings.core.matcher.name == "ratio"


def test_a_whole_number_out_of_range_at_start_is_a_problem(make_node: Callable[..., Any]) -> None:
    node = make_node(geometry__threshold_px=-1)
    assert list(parameters.declare(node)) == ["geometry.threshold_px"]
    assert parameters.read(node).core.geometry.threshold_px == 1.0


@pytest.mark.parametrize(
    ("name", "value", "configured", "reason"),
    [
        ("matcher.name", "magic", False, "one of superglue, nn"),
        ("matcher.name", "ratio", True, "while the node is configured"),
        ("matcher.name", "superglue", True, None),  # no change
        ("matcher.ratio", 0.7, True, None),
        ("matcher.ratio", 1, True, None),
        ("matcher.ratio", 1.5, True, "from 0.0 to 1.0"),
        ("matcher.ratio", float("nan"), True, "from 0.0 to 1.0"),
        ("front_end.max_keypoints", 0, True, "from 1 to"),
        ("front_end.max_keypoints", "many", True, "must be int"),
        ("use_sim_time", True, True, None),
    ],
)
def test_changes_are_checked_without_side_effects(
    make_node: Callable[..., Any], name: str, value: Any, configured: bool, reason: str | None
) -> None:
    node = make_node()
    parameters.declare(node)
    before = parameters.read(node)
    result = parameters.check_change(node, [Parameter(name, value=value)], configured=configured)
    assert result.successful == (reason is None)
    if reason is not None:
        assert name in result.reason
        assert reason in result.reason
    assert parameters.read(node) == before


def test_unknown_names_get_a_hint() -> None:
    assert "did you mean matcher.threshold?" in parameters.unknown_name("matcher.treshold")
    assert "did you mean" not in parameters.unknown_name("xyzzy")


def test_changes_on_the_running_node(matcher: Matcher) -> None:
    at = matcher.tick()
    assert matcher.set(geometry__min_matches=10000)[0].successful
    matcher.peer.send(at)
    assert matcher.peer.output("matches", at).status == Matches.FEW  # the very next frame
    at = matcher.tick()
    results = matcher.set(geometry__min_matches=15, front_end__max_keypoints=40)
    assert all(result.successful for result in results)
    matcher.peer.send(at)
    assert matcher.peer.output("matches", at).status == Matches.OK
    assert len(matcher.peer.output("features", at).u) == 40
    assert matcher.set(front_end__max_keypoints=300)[0].successful


def test_a_whole_number_stays_a_double(matcher: Matcher) -> None:
    """``ros2 param set /matcher matcher.threshold 1`` made an integer of the parameter."""
    for value in (1, 0):
        assert matcher.set(matcher__threshold=value)[0].successful
        found = matcher.get("matcher.threshold")
        assert (found.type, found.double_value) == (ParameterType.PARAMETER_DOUBLE, value)
    (refused,) = matcher.set(matcher__threshold=2)
    assert not refused.successful
    assert "out of range" in refused.reason
    for value in (True, "much"):
        (refused,) = matcher.set(matcher__threshold=value)
        assert "matcher.threshold must be float" in refused.reason
    assert matcher.get("matcher.threshold").double_value == 0.0
    assert matcher.set(matcher__threshold=0.2)[0].successful


def test_refusals_on_the_running_node(matcher: Matcher) -> None:
    refused = matcher.set(
        matcher__name="superglue", geometry__threshold_px=-1.0, intake__mode="sometimes"
    )
    assert [result.successful for result in refused] == [False] * 3
    assert "clean up first" in refused[0].reason
    assert "out of range" in refused[1].reason
    assert matcher.get("matcher.name").string_value == "mutual"
    described = matcher.describe("geometry.threshold_px")
    assert described.floating_point_range[0].from_value == pytest.approx(0.05)
    assert "px" in described.description
