"""What a killed process leaves in shared memory does not keep the next one from starting."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from superglue_ros.ros.beginning import remove_unfinished_ports

pytestmark = pytest.mark.ros

FINISHED = b"\2\0\0\0" + bytes(60)


def write(port: Path, content: bytes, age: float) -> Path:
    """A file ``age`` seconds old."""
    port.write_bytes(content)
    changed = time.time() - age
    os.utime(port, (changed, changed))
    return port


@pytest.mark.slow
def test_a_node_begins_where_another_was_killed() -> None:
    """Without the removal it waits for ever in rcl_node_init."""
    # Domains have 250 ports from 7400 on; the first participant's own begin at the tenth.
    ports = {
        domain: [Path(f"/dev/shm/fastdds_port{7400 + 250 * domain + own}") for own in range(10, 14)]
        for domain in range(211, 231)  # above those of the fixture
    }
    # No domain in use: to truncate the port of a live participant kills its process.
    domain = next(number for number, used in ports.items() if not any(map(Path.exists, used)))
    for port in ports[domain]:
        write(port, b"", age=60.0)
    code = (
        "import rclpy; from superglue_ros.ros.beginning import begin\n"
        "begin(); node = rclpy.create_node('begins'); print('has begun')\n"
        "node.destroy_node(); rclpy.shutdown()"
    )
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
        )
    finally:
        for port in ports[domain]:
            port.unlink(missing_ok=True)
    assert "has begun" in done.stdout, done.stderr
    assert f"{ports[domain][1]}, left by a process that was killed" in done.stderr


def test_only_ports_that_stay_unfinished_are_removed(tmp_path: Path) -> None:
    empty = write(tmp_path / "fastdds_port7411", b"", age=60.0)
    begun = write(tmp_path / "fastrtps_port7661", b"\1\0\0\0" + bytes(60), age=60.0)
    kept = {
        write(tmp_path / "fastdds_port7413", FINISHED, age=60.0),
        write(tmp_path / "fastdds_port7415", b"", age=1.0),  # somebody makes it now
        write(tmp_path / "fastdds_port7417_el", b"", age=60.0),  # locks are always empty
        write(tmp_path / f"fastdds_{secrets.token_hex(8)}", b"", age=60.0),
        write(tmp_path / "iox_port7419", b"", age=60.0),
    }
    link = tmp_path / "fastdds_port7421"
    link.symlink_to(empty)
    pipe = tmp_path / "fastdds_port7423"
    os.mkfifo(pipe)  # opening it would wait
    for other in (link, pipe):
        os.utime(other, (0, 0), follow_symlinks=False)
    assert remove_unfinished_ports(tmp_path) == [empty, begun]
    assert set(tmp_path.iterdir()) == kept | {link, pipe}


def test_one_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port = write(tmp_path / "fastdds_port7411", b"", age=60.0)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert remove_unfinished_ports(tmp_path) == []
    said = capfd.readouterr().err
    assert f"{port} is what a killed process left" in said
    assert "Operation not permitted" in said
