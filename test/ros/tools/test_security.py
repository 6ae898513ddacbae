"""SROS2: the policy of the node itself, a keystore that OpenSSL verifies, a secured exchange."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from superglue_ros.cli import main
from superglue_ros.errors import ConfigError, DataError
from superglue_ros.ros.tools.keystore import (
    EVERYTHING,
    Permissions,
    make_keystore,
    permissions_of,
)

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
POLICY = """
<policy version="0.2.0"><enclaves><enclave path="/robot/matcher"><profiles>
  <profile ns="/robot" node="matcher">
    <services reply="ALLOW"><service>/robot/matcher/reset</service></services>
    <services request="ALLOW"><service>/map/get</service></services>
    <topics publish="ALLOW"><topic>/robot/matches</topic></topics>
    <topics subscribe="ALLOW"><topic>/robot/image</topic></topics>
  </profile>
</profiles></enclave></enclaves></policy>
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the matcher as it runs with depth and another name of the images."""
    return _write_policy(tmp_path_factory.mktemp("policy") / "matcher.policy.xml")


def _write_policy(file: Path) -> Path:
    command = [sys.executable, "-m", "superglue_ros.cli", "security", "policy"]
    ros = ["--ros-args", "-r", "image:=/camera/image_raw", "-p", "inputs.depth:=true"]
    done = subprocess.run(
        [*command, "--output", file, *ros], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "enclave /matcher" in done.stdout
    return file


@pytest.mark.ros
def test_the_policy_names_what_the_node_uses_and_nothing_else(policy: Path) -> None:
    profile = next(ElementTree.parse(policy).iter("profile"))
    allowed = {
        access: {entry.text for entry in group} for group in profile for access in group.attrib
    }
    assert allowed["subscribe"] == {"/camera/image_raw", "/camera_info", "/depth"}
    assert {"/matches", "/relative_pose", "/diagnostics", "/rosout"} <= allowed["publish"]
    assert not {"/camera/image_raw", "/cmd_vel"} & allowed["publish"]
    own = {f"/matcher/{name}" for name in ("reset", "save_map", "change_state", "set_parameters")}
    assert own <= allowed["reply"]
    assert all(name.startswith("/matcher/") for name in allowed["reply"])
    assert "request" not in allowed


@pytest.mark.ros
def test_a_running_node_of_the_same_name_does_not_count(policy: Path, tmp_path: Path) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("matcher", context=context)
    try:
        again = _write_policy(tmp_path / "again.policy.xml")
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert again.read_text() == policy.read_text()


def test_permissions_are_those_of_the_policy_in_the_names_of_dds() -> None:
    assert permissions_of(POLICY) == {
        "/robot/matcher": Permissions(
            publish=(
                "ros_discovery_info",
                "rq/map/getRequest",
                "rr/robot/matcher/resetReply",
                "rt/robot/matches",
            ),
            subscribe=(
                "ros_discovery_info",
                "rq/robot/matcher/resetRequest",
                "rr/map/getReply",
                "rt/robot/image",
            ),
        )
    }


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("<policy", "<polic", "is no XML"),
        ('subscribe="ALLOW"', 'subscribe="DENY"', "topics subscribe='DENY': only ALLOW"),
        (">/map/get<", ">map/get<", "'map/get' of the policy is not fully qualified"),
        ("enclave ", "enclosure ", "is no XML"),
    ],
)
def test_other_policies_are_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        permissions_of(POLICY.replace(old, new, 1))


def openssl(*words: str | Path) -> str:
    return subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, check=True
    ).stdout


def test_a_keystore_is_signed_by_its_authority(tmp_path: Path) -> None:
    make_keystore(tmp_path, permissions_of(POLICY), 7)
    enclave, authority = tmp_path / "enclaves/robot/matcher", tmp_path / "public/ca.cert.pem"
    assert "OK" in openssl("verify", "-CAfile", authority, enclave / "cert.pem")
    subject = openssl("x509", "-in", enclave / "cert.pem", "-noout", "-subject")
    assert subject.split("CN")[1].strip(" =\n") == "/robot/matcher"
    for name, found, expected in (
        ("permissions", ".//allow_rule/publish/topics/topic", "ros_discovery_info"),
        ("governance", ".//allow_unauthenticated_participants", "false"),
    ):
        signed = enclave / f"{name}.p7s"
        text = openssl("smime", "-verify", "-text", "-in", signed, "-CAfile", authority)
        document = ElementTree.fromstring(text.strip())
        assert document.findtext(found) == expected
        assert document.findtext(".//domains/id") == "7"
    assert document.tag == "dds"
    for key in (enclave / "key.pem", tmp_path / "private/ca.key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
    before = [file.read_bytes() for file in (authority, enclave / "key.pem")]
    make_keystore(tmp_path, {"/peer": EVERYTHING}, 7)
    assert before == [file.read_bytes() for file in (authority, enclave / "key.pem")]
    assert "OK" in openssl("verify", "-CAfile", authority, tmp_path / "enclaves/peer/cert.pem")


def test_wrong_enclaves_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"'\.\./peer' is no path of an enclave"):
        make_keystore(tmp_path, {"../peer": EVERYTHING}, 0)
    assert main(["security", "keystore", str(tmp_path)]) == 1
    assert "give enclaves" in capsys.readouterr().err
    missing = str(tmp_path / "nowhere.xml")
    assert main(["security", "keystore", str(tmp_path), "--policy", missing]) == 1
    assert "nowhere.xml cannot be read" in capsys.readouterr().err


def without_security(secured: dict[str, str]) -> bool:
    """Whether this ROS was built without DDS security; another failure is one of the test."""
    code = "import rclpy; rclpy.init(); rclpy.create_node('probe')"
    command = [sys.executable, "-c", code, "--ros-args", "--enclave", "/peer"]
    said = subprocess.run(command, env=secured, capture_output=True, text=True, check=False).stderr
    return "doesn't have the security libraries" in said


@pytest.mark.ros
@pytest.mark.slow
def test_a_secured_peer_is_answered_and_an_unsecured_one_is_not_heard(
    policy: Path, tmp_path: Path, domain: int
) -> None:
    store = tmp_path / "keystore"
    make_keystore(store, {**permissions_of(policy.read_text()), "/peer": EVERYTHING}, domain)
    open_ = {**os.environ, "OMP_NUM_THREADS": "1"}
    secured = {
        **open_,
        "ROS_SECURITY_KEYSTORE": str(store),
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
    }
    as_peer = {**secured, "ROS_SECURITY_ENCLAVE_OVERRIDE": "/peer"}
    if without_security(as_peer):
        pytest.skip("this ROS was built without DDS security")
    quick = ("front_end.name:=sift", "matcher.name:=mutual", "warm_up:=false", "autostart:=true")
    parameters = [word for value in quick for word in ("-p", value)]
    ros = ["--enclave", "/matcher", "-r", "image:=/camera/image_raw", *parameters]
    log = tmp_path / "matcher.log"
    with log.open("wb") as output:
        node = subprocess.Popen(
            [sys.executable, "-m", "superglue_ros.ros.start", "--ros-args", *ros],
            env=secured,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    peer = [sys.executable, HERE.parent / "secured_peer.py"]
    intruder = subprocess.Popen(
        [*peer, "intruder"], env=open_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        friend = subprocess.run(
            [*peer, "friend"], env=as_peer, capture_output=True, text=True, check=False
        )
        said, _ = intruder.communicate("\n", timeout=60)  # it sent all the while
    finally:
        for process in (node, intruder):
            process.kill()
            process.wait()
    assert friend.returncode == 0, friend.stderr + log.read_text(errors="replace")
    assert json.loads(friend.stdout)["matched"] > 50
    assert json.loads(said) == {"matched": 0, "heard_by": 0}
