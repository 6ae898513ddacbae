"""What superglue_ros relies on in ``message_filters``: the real package passes it unchanged."""

import itertools
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS")

from message_filters import (  # noqa: E402  (after the guard: without ROS there is none)
    ApproximateTimeSynchronizer,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from std_msgs.msg import Header  # noqa: E402


def message(milliseconds, name=""):
    seconds, rest = divmod(milliseconds, 1000)
    result = CameraInfo(header=Header(frame_id=name))
    result.header.stamp.sec = seconds
    result.header.stamp.nanosec = rest * 1_000_000
    return result


def milliseconds(message):
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000


def connected(make, inputs=2):
    """Return filters to feed, and the list of stamps that the synchroniser puts out."""
    sources = [SimpleFilter() for _ in range(inputs)]
    synchroniser = make(sources)
    out = []
    synchroniser.registerCallback(lambda *sets: out.append(tuple(map(milliseconds, sets))))
    return sources, out


def exact(queue_size=10):
    return lambda sources: TimeSynchronizer(sources, queue_size)


def approximate(slop, queue_size=10):
    return lambda sources: ApproximateTimeSynchronizer(sources, queue_size, slop)


def test_callbacks_get_the_messages_and_then_their_own_arguments():
    source, calls = SimpleFilter(), []
    source.registerCallback(lambda *given: calls.append(given), "extra", 7)
    source.registerCallback(lambda *given: calls.append(given))
    source.signalMessage("a", "b")
    assert calls == [("a", "b", "extra", 7), ("a", "b")]


@pytest.mark.parametrize("make", [exact(), approximate(0.01)])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equal_stamps_meet_in_any_order_of_arrival(make, order):
    sources, out = connected(make, inputs=3)
    for index in order:
        assert out == []
        sources[index].signalMessage(message(1500))
    assert out == [(1500, 1500, 1500)]


def test_messages_arrive_in_the_order_of_the_inputs():
    sources = [SimpleFilter(), SimpleFilter()]
    out = []
    TimeSynchronizer(sources, 2).registerCallback(
        lambda *sets: out.append([m.header.frame_id for m in sets])
    )
    sources[1].signalMessage(message(1, "second"))
    sources[0].signalMessage(message(1, "first"))
    assert out == [["first", "second"]]


def test_exact_takes_nothing_else():
    sources, out = connected(exact())
    sources[0].signalMessage(message(100))
    sources[1].signalMessage(message(101))
    assert out == []


@pytest.mark.parametrize("make", [exact(), approximate(0.05)])
def test_a_message_is_used_once(make):
    sources, out = connected(make)
    sources[0].signalMessage(message(100))
    sources[1].signalMessage(message(100))
    sources[1].signalMessage(message(100))
    assert out == [(100, 100)]


@pytest.mark.parametrize("make", [exact(queue_size=2), approximate(0.001, queue_size=2)])
def test_the_oldest_stamp_leaves_a_full_queue(make):
    sources, out = connected(make)
    for stamp in (100, 200, 300):
        sources[0].signalMessage(message(stamp))
    for stamp in (100, 200, 300):
        sources[1].signalMessage(message(stamp))
    assert out == [(200, 200), (300, 300)]


def test_a_repeated_stamp_replaces_the_message():
    sources = [SimpleFilter(), SimpleFilter()]
    out = []
    TimeSynchronizer(sources, 5).registerCallback(lambda a, b: out.append(a.header.frame_id))
    sources[0].signalMessage(message(1, "old"))
    sources[0].signalMessage(message(1, "new"))
    sources[1].signalMessage(message(1))
    assert out == ["new"]


@pytest.mark.parametrize(("gap", "meets"), [(0, True), (19, True), (21, False)])
def test_approximate_joins_within_the_slop(gap, meets):
    sources, out = connected(approximate(0.02))
    sources[0].signalMessage(message(1000))
    sources[1].signalMessage(message(1000 + gap))
    assert out == ([(1000, 1000 + gap)] if meets else [])


def test_approximate_takes_the_nearest_that_waits():
    sources, out = connected(approximate(0.05))
    for stamp in (960, 995, 1030):
        sources[0].signalMessage(message(stamp))
    sources[1].signalMessage(message(1000))
    assert out == [(995, 1000)]
    sources[1].signalMessage(message(1040))
    assert out == [(995, 1000), (1030, 1040)]


def test_approximate_spans_all_inputs():
    # Each neighbour is within the slop of the last, but the first and the last are not.
    sources, out = connected(approximate(0.02), inputs=3)
    sources[0].signalMessage(message(1000))
    sources[1].signalMessage(message(1030))
    sources[2].signalMessage(message(1015))
    assert out == []
    sources[1].signalMessage(message(1010))
    assert out == [(1000, 1010, 1015)]


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("message_filters_contract", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.ros
@pytest.mark.parametrize("best_effort", [False, True])
def test_subscribers_deliver_over_dds(node, best_effort):
    qos = QoSProfile(depth=5)
    if best_effort:
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    subscribers = [Subscriber(node, CameraInfo, name, qos_profile=qos) for name in ("one", "two")]
    publishers = [node.create_publisher(CameraInfo, name, qos) for name in ("one", "two")]
    out = []
    TimeSynchronizer(subscribers, 10).registerCallback(
        lambda a, b: out.append((a.header.frame_id, b.header.frame_id))
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    stamp, deadline = 0, time.monotonic() + 20
    while not out and time.monotonic() < deadline:
        stamp += 1
        for publisher, name in zip(publishers, ("left", "right"), strict=True):
            publisher.publish(message(stamp, name))
        executor.spin_once(timeout_sec=0.1)
    assert out[0] == ("left", "right")
    executor.shutdown()


@pytest.mark.ros
def test_a_subscriber_stands_for_its_subscription(node):
    subscriber = Subscriber(node, CameraInfo, "topic")
    assert subscriber.getTopic() == "topic"
    assert subscriber.sub in node.subscriptions
    assert subscriber.topic_name == "/topic"
    assert subscriber.qos_profile.depth == 10
    assert subscriber.msg_type is CameraInfo
