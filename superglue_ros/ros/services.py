"""The node's services. Each runs on the worker, in turn with the frames."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import Trigger

from superglue_ros.errors import SuperglueError
from superglue_ros.ros import convert
from superglue_ros.ros.processing import FrameProcessor
from superglue_ros.srv import AddKeyframe, LoadMap, MatchPair, SaveMap

Job = Callable[[FrameProcessor], Any]


class Services:
    """``~/match_pair``, ``~/add_keyframe``, ``~/reset``, ``~/save_map`` and ``~/load_map``.

    ``run`` passes a job to the worker; it returns None if the node is not configured. A request
    that fails is answered with ``success`` false and the reason in ``message``.
    """

    def __init__(self, node: Node, run: Callable[[Job], Future[Any] | None]) -> None:
        self._node = node
        self._run = run
        # Its own callback group: waiting for the worker must not block images and transitions.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (MatchPair, "~/match_pair", self._match_pair),
            (AddKeyframe, "~/add_keyframe", self._add_keyframe),
            (Trigger, "~/reset", self._reset),
            (SaveMap, "~/save_map", self._save_map),
            (LoadMap, "~/load_map", self._load_map),
        ):
            node.create_service(kind, name, callback, callback_group=group)

    async def _match_pair(
        self, request: MatchPair.Request, response: MatchPair.Response
    ) -> MatchPair.Response:
        pair = await self._answer(response, lambda processor: processor.match_pair(request))
        if pair is not None:
            response.matches = convert.matches_to_message(pair.matches)
            response.relative_pose = convert.pose_to_message(pair.pose)
        return response

    async def _add_keyframe(
        self, request: AddKeyframe.Request, response: AddKeyframe.Response
    ) -> AddKeyframe.Response:
        frame = await self._answer(
            response, lambda processor: processor.add_keyframe(request.image, request.camera_info)
        )
        if frame is not None:
            response.frame = convert.frame_id_to_message(frame)
        return response

    async def _reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        def reset(processor: FrameProcessor) -> int:
            dropped = processor.keyframes
            processor.reset()
            return dropped

        dropped = await self._answer(response, reset)
        if dropped is not None:
            response.message = f"{dropped} keyframes dropped, frame ids go on counting"
            self._node.get_logger().warning(f"reset by service: {response.message}")
        return response

    async def _save_map(
        self, request: SaveMap.Request, response: SaveMap.Response
    ) -> SaveMap.Response:
        count = await self._answer(response, lambda processor: processor.save_map(request.path))
        response.keyframes = count or 0
        return response

    async def _load_map(
        self, request: LoadMap.Request, response: LoadMap.Response
    ) -> LoadMap.Response:
        def load(processor: FrameProcessor) -> tuple[int, int]:
            return processor.load_map(request.path), processor.placed_keyframes

        count, placed = await self._answer(response, load) or (0, 0)
        response.keyframes = count
        if response.success:
            response.message = f"{placed} of {count} keyframes have a pose in the map"
            if not placed:
                response.message += (
                    ": relocalised_pose stays silent. A map with poses comes from `superglue-ros "
                    "reconstruct` with images that have poses, or from a run in such a map"
                )
            self._node.get_logger().info(f"map {request.path}: {response.message}")
        return response

    async def _answer(self, response: Any, job: Job) -> Any:
        """The result of ``job``, or None if it failed; fills in ``success`` and ``message``."""
        started = self._run(job)
        if started is None:
            response.success = False
            response.message = "the node is not configured: configure it first"
            return None
        try:
            found = await self._ros_future(started)
        except SuperglueError as error:
            response.success, response.message = False, str(error)
        except CancelledError:
            response.success, response.message = False, "the node is being cleaned up"
        except Exception as error:
            self._node.get_logger().error(f"a service failed: {error!r}")
            response.success, response.message = False, f"unforeseen {error!r}"
        else:
            response.success = True
            return found
        return None

    def _ros_future(self, future: Future[Any]) -> RosFuture:
        """A future for the executor to await, done when the worker's is."""
        awaited = RosFuture(executor=self._node.executor)
        # Scheduling a callback lets the end of the future wake the executor.
        awaited.add_done_callback(lambda _: None)

        def done(finished: Future[Any]) -> None:
            if finished.cancelled():
                awaited.set_exception(CancelledError())
            elif (error := finished.exception()) is not None:
                awaited.set_exception(error)
            else:
                awaited.set_result(finished.result())

        future.add_done_callback(done)
        return awaited
