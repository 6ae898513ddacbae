"""Keystores for DDS security (SROS2's layout), made with ``openssl`` where `ros2 security` is not.

A keystore holds a certificate authority, one governance for the domain, and for each enclave its
key, its certificate and its signed permissions. See "DDS Security" 1.1 of the OMG, sections 9.4.1.2
and 9.4.1.3; topic names are mangled as ROS 2 does it (design.ros2.org, topic and service names).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

from superglue_ros.errors import ConfigError, DataError

_DAYS = 3650
_ENCLAVE = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
_SCHEMA = "http://www.omg.org/spec/DDS-SECURITY/20170901/"
# The graph, which every participant announces itself in; of its own rclpy uses nothing else.
_ALWAYS = "ros_discovery_info"


@dataclass(frozen=True)
class Permissions:
    """Names of DDS topics that an enclave may write and read; ``*`` matches any."""

    publish: tuple[str, ...] = ("*",)
    subscribe: tuple[str, ...] = ("*",)


EVERYTHING = Permissions()


def permissions_of(policy: str) -> dict[str, Permissions]:
    """The permissions of every enclave of an SROS2 policy, by its path.

    Topics and services by fully qualified name, all of them ALLOW. Raises :class:`DataError`.
    """
    try:
        root = ElementTree.fromstring(policy)
    except ElementTree.ParseError as error:
        raise DataError(f"the policy is no XML: {error}") from error
    found = {}
    for enclave in root.iter("enclave"):
        publish, subscribe = {_ALWAYS}, {_ALWAYS}
        for group in (*enclave.iter("topics"), *enclave.iter("services")):
            for access, verdict in group.attrib.items():
                if verdict != "ALLOW" or access not in _MANGLED:
                    raise DataError(
                        f"{group.tag} {access}={verdict!r}: only ALLOW of topics and services is "
                        "known here, use `ros2 security create_permission`"
                    )
                for entry in group:
                    for written, topic in _MANGLED[access](_absolute(entry.text or "")):
                        (publish if written else subscribe).add(topic)
        path = enclave.get("path", "")
        found[path] = Permissions(tuple(sorted(publish)), tuple(sorted(subscribe)))
    if not found:
        raise DataError("the policy has no enclave")
    return found


def _absolute(name: str) -> str:
    if not name.startswith("/"):
        raise DataError(f"{name!r} of the policy is not fully qualified: let it start with /")
    return name


# What each access means in DDS: (written?, topic).
_MANGLED = {
    "publish": lambda name: [(True, f"rt{name}")],
    "subscribe": lambda name: [(False, f"rt{name}")],
    "reply": lambda name: [(False, f"rq{name}Request"), (True, f"rr{name}Reply")],
    "request": lambda name: [(True, f"rq{name}Request"), (False, f"rr{name}Reply")],
}


def make_keystore(folder: Path, enclaves: Mapping[str, Permissions], domain_id: int) -> None:
    """Make a keystore, or add enclaves to one that was made here; keys are never replaced.

    ``enclaves`` by path (``/matcher``). The permissions hold in ``domain_id`` alone. Raises
    :class:`ConfigError` and :class:`DataError`.
    """
    if shutil.which("openssl") is None:
        raise ConfigError("openssl is not installed: apt install openssl")
    for path in enclaves:
        if not _ENCLAVE.fullmatch(path):
            raise ConfigError(f"{path!r} is no path of an enclave, such as /matcher")
    public, private, root = (folder / name for name in ("public", "private", "enclaves"))
    for one in (public, private, root):
        one.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    key, certificate = private / "ca.key.pem", public / "ca.cert.pem"
    if not key.exists():
        _make_key(key)
        _openssl("req", "-x509", "-new", "-key", key, "-subj", "/CN=superglue_ros_ca",
                 "-days", _DAYS, "-out", certificate)  # fmt: skip
    authority = _Authority(key, certificate)
    for name in ("identity_ca", "permissions_ca"):
        _link(public / f"{name}.cert.pem", certificate)
        _link(private / f"{name}.key.pem", key)
    (root / "governance.xml").write_text(_governance(domain_id))
    authority.sign(root / "governance.xml", root / "governance.p7s")
    for path, permissions in enclaves.items():
        _make_enclave(root / path[1:], path, permissions, domain_id, authority, folder)


@dataclass(frozen=True)
class _Authority:
    key: Path
    certificate: Path

    def sign(self, document: Path, signed: Path) -> None:
        """S/MIME, with the document in clear text, as the DDS-Security plugins read it."""
        _openssl("smime", "-sign", "-text", "-in", document, "-out", signed,
                 "-signer", self.certificate, "-inkey", self.key)  # fmt: skip

    def certify(self, name: str, key: Path, certificate: Path) -> None:
        request = certificate.with_suffix(".csr")
        subject = "/CN=" + name.replace("/", "\\/")
        _openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
                 "-set_serial", str(int.from_bytes(os.urandom(8), "big")),
                 "-days", _DAYS, "-out", certificate)  # fmt: skip
        request.unlink()


def _make_enclave(
    folder: Path,
    path: str,
    permissions: Permissions,
    domain_id: int,
    authority: _Authority,
    keystore: Path,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "key.pem").exists():
        _make_key(folder / "key.pem")
        authority.certify(path, folder / "key.pem", folder / "cert.pem")
    for name in ("identity_ca", "permissions_ca"):
        _link(folder / f"{name}.cert.pem", keystore / "public" / f"{name}.cert.pem")
    _link(folder / "governance.p7s", keystore / "enclaves" / "governance.p7s")
    (folder / "permissions.xml").write_text(_permissions(path, permissions, domain_id))
    authority.sign(folder / "permissions.xml", folder / "permissions.p7s")


def _make_key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    path.chmod(0o600)


def _openssl(*words: str | int | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"openssl {words[0]} failed: {done.stderr.strip()}")


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _governance(domain_id: int) -> str:
    """Nobody without a certificate; everything encrypted; access by the permissions."""
    root, rule = _document("governance", "domain_access_rules", "domain_rule")
    _domains(rule, domain_id)
    for name, value in {
        "allow_unauthenticated_participants": "false",
        "enable_join_access_control": "true",
        "discovery_protection_kind": "ENCRYPT",
        "liveliness_protection_kind": "ENCRYPT",
        "rtps_protection_kind": "SIGN",
    }.items():
        ElementTree.SubElement(rule, name).text = value
    topics = ElementTree.SubElement(
        ElementTree.SubElement(rule, "topic_access_rules"), "topic_rule"
    )
    for name, value in {
        "topic_expression": "*",
        "enable_discovery_protection": "true",
        "enable_liveliness_protection": "true",
        "enable_read_access_control": "true",
        "enable_write_access_control": "true",
        "metadata_protection_kind": "ENCRYPT",
        "data_protection_kind": "ENCRYPT",
    }.items():
        ElementTree.SubElement(topics, name).text = value
    return _text(root)


def _permissions(path: str, permissions: Permissions, domain_id: int) -> str:
    root, grant = _document("permissions", "permissions", "grant")
    grant.set("name", path)
    ElementTree.SubElement(grant, "subject_name").text = f"CN={path}"
    now = datetime.now(UTC)
    validity = ElementTree.SubElement(grant, "validity")
    for name, moment in (
        ("not_before", now - timedelta(days=1)),
        ("not_after", now + timedelta(days=_DAYS)),
    ):
        ElementTree.SubElement(validity, name).text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    rule = ElementTree.SubElement(grant, "allow_rule")
    _domains(rule, domain_id)
    _topics(rule, "publish", permissions.publish)
    _topics(rule, "subscribe", permissions.subscribe)
    ElementTree.SubElement(grant, "default").text = "DENY"
    return _text(root)


def _document(name: str, *path: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    xsi = "http://www.w3.org/2001/XMLSchema-instance"
    root = ElementTree.Element(
        "dds",
        {
            "xmlns:xsi": xsi,
            "xsi:noNamespaceSchemaLocation": f"{_SCHEMA}omg_shared_ca_{name}.xsd",
        },
    )
    node = root
    for part in path:
        node = ElementTree.SubElement(node, part)
    return root, node


def _domains(parent: ElementTree.Element, domain_id: int) -> None:
    domains = ElementTree.SubElement(parent, "domains")
    ElementTree.SubElement(domains, "id").text = str(domain_id)


def _topics(rule: ElementTree.Element, access: str, names: Iterable[str]) -> None:
    topics = ElementTree.SubElement(ElementTree.SubElement(rule, access), "topics")
    for name in names:
        ElementTree.SubElement(topics, "topic").text = name


def _text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root).decode()}\n'
