"""``superglue-ros security``: the nodes' policies, keystores where SROS2's tools are missing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from superglue_ros.errors import ConfigError, DataError
from superglue_ros.ros.tools.keystore import EVERYTHING, make_keystore, permissions_of


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "security", help="SROS2: policies of the nodes, and keystores", description=__doc__
    )
    group = parser.add_subparsers(dest="security", required=True, metavar="WHAT")
    policy = group.add_parser(
        "policy",
        help="write the SROS2 policy of a node",
        description="Write the policy of a node as it runs with the given parameters and names: "
        "everything it publishes, takes, offers and calls, and nothing else.",
    )
    policy.add_argument("--node", choices=("matcher", "bundle_adjuster"), default="matcher")
    policy.add_argument("--enclave", default="", metavar="PATH", help="default: / and the node")
    policy.add_argument("--output", type=Path, required=True, metavar="FILE")
    policy.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="as for the node: -r image:=/camera/image_raw -p inputs.depth:=true ...",
    )
    policy.set_defaults(run=run_policy)
    keystore = group.add_parser(
        "keystore",
        help="make a keystore with openssl",
        description="Make a keystore, or add enclaves to one; `ros2 security` does it too.",
    )
    keystore.add_argument("folder", type=Path)
    keystore.add_argument(
        "--policy", type=Path, nargs="+", default=[], metavar="FILE", help="enclaves of policies"
    )
    keystore.add_argument(
        "--unrestricted",
        nargs="+",
        default=[],
        metavar="PATH",
        help="enclaves that may use every topic and service: other nodes, tools",
    )
    keystore.add_argument(
        "--domain-id",
        type=int,
        default=int(os.environ.get("ROS_DOMAIN_ID") or 0),
        help="the only domain it holds for (default: $ROS_DOMAIN_ID, or 0)",
    )
    keystore.set_defaults(run=run_keystore)


def run_policy(args: argparse.Namespace) -> int:
    """Start the node for a moment and write what it uses."""
    try:
        from superglue_ros.ros.tools.security_policy import NODES, policy_xml
    except ImportError as error:
        raise ConfigError(
            f"the policy is read from the node itself, which needs ROS: {error}"
        ) from error
    used = NODES[args.node](args.ros_args)
    enclave = args.enclave or f"{used.namespace.rstrip('/')}/{used.name}"
    try:
        args.output.write_text(policy_xml(used, enclave), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{args.output} cannot be written: {error.strerror}") from error
    topics, services = len(used.publish) + len(used.subscribe), len(used.reply)
    print(f"{args.output}: enclave {enclave}, {topics} topics, {services} services")
    return 0


def run_keystore(args: argparse.Namespace) -> int:
    """Make the keystore and say how it is used."""
    enclaves = dict.fromkeys(args.unrestricted, EVERYTHING)
    for file in args.policy:
        try:
            enclaves |= permissions_of(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"policy {file} cannot be read: {error}") from error
    if not enclaves:
        raise ConfigError("give enclaves: --policy FILE, --unrestricted PATH")
    make_keystore(args.folder, enclaves, args.domain_id)
    print(
        f"enclaves {', '.join(sorted(enclaves))} in domain {args.domain_id}. Use them with\n"
        f"  export ROS_SECURITY_KEYSTORE={args.folder.resolve()}\n"
        f"  export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce\n"
        f"and --ros-args --enclave PATH, or enclave:=PATH of the launch files"
    )
    return 0
