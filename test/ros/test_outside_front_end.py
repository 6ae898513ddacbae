"""The example of docs/front_end.md, as it stands there, and what the node tells a front-end."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import Matcher

from superglue_ros.config import Config
from superglue_ros.msg import Matches
from superglue_ros.rig import Rig
from superglue_ros.settings import from_flat

pytestmark = pytest.mark.ros

PAGE = Path(__file__).resolve().parents[2] / "docs" / "front_end.md"


def test_the_example_of_the_page_runs(configure: Callable[..., Matcher], tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "front_end.py").write_text(code, encoding="utf-8")
    # The node's own front-end is another one: it can be seen whose descriptors are taken.
    matcher = configure({"inputs.keypoints": True, "front_end.name": "orb"})
    with (tmp_path / "log").open("wb") as log:
        front_end = subprocess.Popen(
            [sys.executable, str(tmp_path / "front_end.py")], stdout=log, stderr=log
        )
    try:
        matcher.prime()
        at = matcher.tick()
        matcher.peer.send(at, shift=7)
        matches = matcher.peer.output("matches", at)
        assert matches.status == Matches.OK
        assert np.median(np.subtract(matches.u_query, matches.u_ref)) == pytest.approx(-7, abs=0.1)
        assert matcher.peer.output("features", at).detector == "sift-root"
        assert front_end.poll() is None, (tmp_path / "log").read_text()
    finally:
        front_end.kill()
        front_end.wait()


def test_the_node_tells_the_kind_of_descriptors_that_it_takes(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure()
    assert matcher.get("matcher.detector").string_value == "sift-root"
    (refused,) = matcher.set(matcher__detector="surf")
    assert not refused.successful
    assert "is set by the node" in refused.reason
    assert matcher.peer.output("status", matcher.prime()).detector == "sift-root"
    assert matcher.deactivate()
    assert matcher.cleanup()
    assert matcher.get("matcher.detector").string_value == ""


@pytest.mark.parametrize(
    ("front_end", "name"), [("superpoint", "superglue"), ("sift", "mutual"), ("orb", "gms")]
)
def test_the_page_names_them(front_end: str, name: str) -> None:
    rig = Rig(
        from_flat(Config, {"device": "cpu", "front_end.name": front_end, "matcher.name": name})
    )
    row = f"| `{front_end}` | `{rig.detector}` | {rig.front_end.descriptor_dim} |"
    assert row in PAGE.read_text(encoding="utf-8")
