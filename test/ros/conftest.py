"""Fixtures: matcher processes over real DDS (see ``matcher_process.py``)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from matcher_process import Matcher


@pytest.fixture(scope="session", autouse=True)
def domain() -> Iterator[int]:
    """A DDS domain of its own: neither other tests nor a robot in the lab are heard."""
    before = os.environ.get("ROS_DOMAIN_ID")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    number = 10 + worker + workers * random.SystemRandom().randrange(200 // workers)
    os.environ["ROS_DOMAIN_ID"] = str(number)
    yield number
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


@pytest.fixture
def start(domain: int, tmp_path: Path) -> Iterator[Callable[..., Matcher]]:
    """Starts matcher processes, and ends those that the test leaves running."""
    from matcher_process import QUICK, Matcher

    started: list[Matcher] = []

    def make(parameters: dict[str, Any] | None = None, **options: Any) -> Matcher:
        log = tmp_path / f"matcher{len(started)}.log"
        if "namespace" not in options:  # apart from the shared process, which may be up too
            options |= {"namespace": "/apart", "arguments": ("-r", "__ns:=/apart")}
        started.append(Matcher(log, {**QUICK, **(parameters or {})}, **options))
        return started[-1]

    yield make
    for matcher in started:
        matcher.kill()


@pytest.fixture(scope="session")
def shared(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matcher]:
    """One process for all tests that can do with it; use :func:`matcher`."""
    from matcher_process import QUICK, Matcher

    matcher = Matcher(tmp_path_factory.mktemp("matcher") / "shared.log", QUICK)
    yield matcher
    code = matcher.stop()
    assert code == 0, f"exit code {code}:\n{matcher.log}"


@pytest.fixture
def configure(shared: Matcher) -> Iterator[Callable[..., Matcher]]:
    """Brings the shared process up with other parameters than the usual ones, and back."""
    from rclpy.parameter import parameter_value_to_python

    changed: dict[str, Any] = {}

    def bring_down() -> None:
        if shared.state() == "active":
            assert shared.deactivate()
        if shared.state() == "inactive":
            assert shared.cleanup()

    def bring_up(parameters: dict[str, Any] | None = None, *, activate: bool = True) -> Matcher:
        bring_down()
        for name in parameters or {}:
            before = shared.get(name)
            changed.setdefault(name, parameter_value_to_python(before))
        results = shared.set_parameters(parameters or {})
        assert all(result.successful for result in results), results
        for messages in shared.peer.received.values():
            messages.clear()
        assert shared.configure(), shared.log
        if activate:
            assert shared.activate()
        return shared

    yield bring_up
    bring_down()
    results = shared.set_parameters(changed)
    assert all(result.successful for result in results), results


@pytest.fixture
def matcher(configure: Callable[..., Matcher]) -> Matcher:
    """The shared process, active and primed: its keyframe is the unshifted image."""
    found = configure()
    found.prime()
    return found
