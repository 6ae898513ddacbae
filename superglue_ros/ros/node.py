"""The matcher node: an adapter between topics and :class:`superglue_ros.pipeline.Pipeline`.

Life cycle: *configure* loads the weights and makes the publishers, *activate* subscribes,
*deactivate* finishes the current frame and unsubscribes, *cleanup* frees the memory.
Threads: the executor's thread stores bundles (:mod:`superglue_ros.ros.inputs`), the worker's one or
two threads run the networks and publish (:mod:`superglue_ros.ros.intake`).
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import rclpy
import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from superglue_ros.errors import ConfigError, SuperglueError
from superglue_ros.pipeline import Pipeline
from superglue_ros.rig import Rig
from superglue_ros.ros import parameters
from superglue_ros.ros.announcer import Announcer, LogBridge
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.diagnostics import Counter
from superglue_ros.ros.ending import Ending, destroy
from superglue_ros.ros.frames import FrameNumbers
from superglue_ros.ros.inputs import Bundle, CameraInputs, PeerFeatures, PeerInput
from superglue_ros.ros.intake import Worker
from superglue_ros.ros.masks import read_static_masks
from superglue_ros.ros.outputs import Outputs
from superglue_ros.ros.processing import Begun, FrameProcessor, images_together, overlaps, warm_up
from superglue_ros.ros.services import Services
from superglue_ros.ros.signals import ignore_further_signals
from superglue_ros.ros.watch import Parts, Watch

NODE_NAME = "matcher"
T = TypeVar("T")
_PATIENCE_SECONDS = 30.0  # to finish the current frame when the node stops


class MatcherNode(LifecycleNode):
    """See the module.

    ``on_failure`` is called with the reason where the node cannot go on by itself, see
    :class:`superglue_ros.ros.watch.Watch`. ``stuck``: its worker did not end when it was released.
    """

    def __init__(self, on_failure: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(NODE_NAME, **kwargs)
        self._announcer = Announcer(self.get_logger())
        self._log_bridge = LogBridge(self.get_logger())
        logging.getLogger("superglue_ros").addHandler(self._log_bridge)
        self._problems = parameters.declare(self)
        parameters.declare_detector(self)
        self._report_start_values()
        self.stuck = False
        self._configuring: tuple[float, parameters.Settings] | None = None
        self._problem = ""
        self._state = "unconfigured"
        self._settings: parameters.Settings | None = None
        self._processor: FrameProcessor | None = None
        self._worker: Worker[Bundle | PeerFeatures, Begun] | None = None
        self._outputs: Outputs | None = None
        self._inputs: list[CameraInputs] = []
        self._peers: PeerInput | None = None
        self._numbers = FrameNumbers()
        self._counter = Counter()
        self._detector = ""
        self.add_pre_set_parameters_callback(parameters.in_declared_types)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._offers = Services(self, self._run_on_worker)
        self._watch = Watch(self, self._counter, self._parts, on_failure)

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # -- life cycle ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, warm up, make the publishers."""
        try:
            self._configure()
        except SuperglueError as error:
            return self._refuse_to_configure(str(error))
        except Exception as error:
            return self._refuse_to_configure(f"{error!r}\n{traceback.format_exc()}")
        finally:
            self._configuring = None
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reset the counters and subscribe."""
        assert self._settings is not None
        self._counter.reset()
        self._watch.start()
        self._announcer.forget()
        try:
            self._inputs = [
                CameraInputs(
                    self,
                    self._settings.node,
                    self._store,
                    camera_index=index,
                    prefix=f"{name}/" if name else "",
                )
                for index, name in enumerate(self._settings.node.camera_names)
            ]
            if self._settings.node.inputs.peers:
                lossless = self._settings.node.intake.mode == "lossless"
                robot = self._settings.core.robot
                self._peers = PeerInput(self, lossless, robot, self._store_peer)
        except Exception as error:  # a wrong QoS override, for example
            self.get_logger().error(f"cannot be activated: {error}")
            return TransitionCallbackReturn.FAILURE
        self._state = "active"
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, drop waiting frames, let the current frame be published."""
        self._stop_listening()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the networks and their memory."""
        self._release()
        _free_memory()
        self._tell_detector("")
        self._state = "unconfigured"
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: stop and free everything."""
        self._stop_listening()
        self._release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed half-way: back to unconfigured."""
        self.get_logger().error("a transition failed; everything is released")
        self._stop_listening()
        self._release()
        self._state = "unconfigured"
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Stop the worker and the watch, then the node."""
        self._watch.stop()
        self._stop_listening()
        self._release()
        logging.getLogger("superglue_ros").removeHandler(self._log_bridge)
        super().destroy_node()

    def _configure(self) -> None:
        if self._problems:
            raise ConfigError(
                "values given at start are not valid: "
                + "; ".join(self._problems.values())
                + ". Set them (ros2 param set) and configure again"
            )
        settings = parameters.read(self)
        self._configuring = time.monotonic(), settings
        rig = Rig(settings.core)
        if settings.node.warm_up:
            warm_up(rig, images_together(settings.node))
        self._tell_detector(rig.detector)
        self._settings = settings
        self._outputs = Outputs(self, settings.node.camera_names)
        self._processor = FrameProcessor(
            [Pipeline(settings.core, rig) for _ in settings.node.camera_names],
            settings,
            self._outputs,
            self._counter,
            self._announcer,
            self._numbers,
            lambda: self._inputs,
            read_static_masks(settings.node),
        )
        self._worker = Worker(
            self._processor.extract,
            self._processor.match,
            overlap=overlaps(settings),
            lossless=settings.node.intake.mode == "lossless",
            together=lambda arrived: isinstance(arrived, Bundle),
            size=lambda arrived: arrived.size,
            max_bytes=settings.node.intake.max_mib << 20,
        )
        self._problem = ""
        self.get_logger().info(
            f"ready: {settings.core.front_end.name} and {settings.core.matcher.name} "
            f"on {self._processor.device}; descriptors are {rig.detector}"
        )

    def _refuse_to_configure(self, text: str) -> TransitionCallbackReturn:
        self._problem = text.splitlines()[0]
        self.get_logger().error(f"cannot be configured: {text}")
        self._release()
        _free_memory()
        return TransitionCallbackReturn.FAILURE

    def _stop_listening(self) -> None:
        for inputs in self._inputs:
            inputs.destroy()
        self._inputs = []
        if self._peers is not None:
            self._peers.destroy()
            self._peers = None
        if self._worker is None:
            return
        self._counter.add(dropped=self._worker.drop_waiting())
        if not self._worker.wait_idle(self._patience()):
            self.get_logger().error(
                f"what is in work takes {self._worker.busy_seconds:.0f} s: not waiting for it"
            )

    def _release(self) -> None:
        if self._worker is not None and not self._worker.stop(self._patience()):
            self.stuck = True
        if self._outputs is not None:
            self._outputs.destroy()
        self._worker = self._outputs = self._processor = self._settings = None

    def _patience(self) -> float:
        """Seconds to wait for what is in work; none if it hangs."""
        assert self._worker is not None
        assert self._settings is not None
        hung_after = self._settings.node.watchdog.hung_after
        return max(0.0, min(_PATIENCE_SECONDS, hung_after - self._worker.busy_seconds))

    # -- frames --------------------------------------------------------------------------------

    def _store(self, bundle: Bundle) -> None:
        """Runs in the subscription's callback, so it only stores."""
        assert self._worker is not None
        dropped = self._worker.put(bundle, bundle.camera_index)
        self._counter.add(received=1, dropped=dropped)

    def _store_peer(self, features: PeerFeatures) -> None:
        assert self._worker is not None
        frame = features.message.frame
        dropped = self._worker.put(features, (frame.robot, frame.camera_index))
        self._counter.add(received=1, dropped=dropped)

    def _run_on_worker(self, job: Callable[[FrameProcessor], T]) -> Future[T] | None:
        """Run the request ``job`` between frames; None where the node is not configured."""
        processor = self._processor
        if self._worker is None or processor is None:
            return None
        return self._worker.submit(lambda: job(processor), request=True)

    def _submit(self, job: Any) -> Future[Any] | None:
        """Run ``job`` between frames; its failure is logged."""
        if self._worker is None:
            return None
        future = self._worker.submit(job)
        future.add_done_callback(self._report_failure)
        return future

    def _report_failure(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self.get_logger().error(f"{future.exception()!r}")

    # -- parameters ----------------------------------------------------------------------------

    def _report_start_values(self) -> None:
        for name, text in self._problems.items():
            self.get_logger().error(f"parameter {name}: {text}")
        given = getattr(self, "_parameter_overrides", {})  # rclpy has no public name for it
        for name in given:
            if not self.has_parameter(name) and not name.startswith("qos_overrides."):
                self.get_logger().warning(parameters.unknown_name(name))

    def _check_parameters(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        return parameters.check_change(
            self, changes, configured=self._settings is not None, detector=self._detector
        )

    def _tell_detector(self, detector: str) -> None:
        self._detector = detector
        self.set_parameters([Parameter(parameters.DETECTOR, value=detector)])

    def _take_parameters(self, changes: list[Parameter[Any]]) -> None:
        for change in changes:
            self._problems.pop(change.name, None)
        if self._settings is None or self._processor is None:
            return
        settings, processor = parameters.read(self), self._processor
        self._settings = settings
        if self._worker is not None:
            self._worker.bound(settings.node.intake.max_mib << 20)
        self._submit(lambda: processor.configure(settings))

    # -- watching ------------------------------------------------------------------------------

    def _parts(self) -> Parts:
        since, coming = self._configuring or (None, None)
        return Parts(
            state=self._state if since is None else "configuring",
            problem=self._problem,
            configuring_seconds=0.0 if since is None else time.monotonic() - since,
            settings=self._settings or coming,
            processor=self._processor,
            worker=self._worker,
            inputs=self._inputs,
        )


def _free_memory() -> None:
    """Release the memory of the networks, also on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM (exit code 0), or until it fails for good (75)."""
    ending = Ending()
    begin(args)
    try:
        node = MatcherNode(lambda reason: ending.wish(os.EX_TEMPFAIL, reason))
        try:
            code = ending.spin(node, node.start if node.get_parameter("autostart").value else None)
        finally:
            destroy(node)
    finally:
        rclpy.shutdown()
        ignore_further_signals()
        gc.freeze()
    if node.stuck:
        os._exit(code)  # the end of the interpreter and of CUDA would wait for what hangs
    return code


if __name__ == "__main__":
    sys.exit(main())
