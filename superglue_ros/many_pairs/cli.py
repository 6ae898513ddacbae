"""``superglue-ros match-many``: millions of pairs, on this machine or a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from superglue_ros.config import Config
from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.pairs.methods import MethodSpec
from superglue_ros.evaluation.progress import counted
from superglue_ros.image_pairs.selection import (
    add_pair_options,
    add_settings_options,
    cameras_of,
    config_of,
    select,
)
from superglue_ros.many_pairs.work import Work
from superglue_ros.settings import to_mapping


def add_subcommands(subparsers: argparse._SubParsersAction) -> None:
    """See :mod:`superglue_ros.cli`."""
    parser = subparsers.add_parser(
        "match-many",
        help="millions of pairs on Ray: resumable, every pair once",
        description="Match all pairs of a folder's images, or the pairs of a list, with processes "
        "on this machine or a Ray cluster. Features are computed once an image; the results are a "
        "Parquet data set. Run the same command again to go on after any end. Needs the extra "
        "`many` (ray, pyarrow).",
    )
    parser.add_argument("images", type=Path, help="folder of images")
    add_pair_options(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    how = parser.add_argument_group("processes")
    how.add_argument("--address", default="", help="of a Ray cluster (default: this machine)")
    how.add_argument("--workers", type=int, default=0, help="processes (default: as many as fit)")
    how.add_argument("--cpus", type=int, default=1, help="cores of each (1)")
    how.add_argument("--gpus", type=float, default=0.0, help="GPUs of each; 0.5: two share one (0)")
    how.add_argument("--batch", type=int, default=64, help="pairs through the network at once (64)")
    how.add_argument("--shard", type=int, default=1000, help="pairs in a file of results (1000)")
    how.add_argument(
        "--timeout", type=float, default=600.0, help="[s] a batch may take before its worker is "
        "killed (600)"
    )  # fmt: skip
    how.add_argument("--attempts", type=int, default=3, help="to do a shard (3)")
    add_settings_options(parser)
    parser.set_defaults(run=run_match_many)


def run_match_many(args: argparse.Namespace) -> int:
    """Features of all images, then matches of all pairs; returns 1 where shards are missing."""
    for name in ("cpus", "batch", "shard", "attempts"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)} must be 1 or more")
    if args.workers < 0 or args.gpus < 0 or args.timeout <= 0:
        raise ConfigError("--workers, --gpus and --timeout must not be negative")
    # Imported here: they need the extra.
    from superglue_ros.many_pairs.pool import Pool, PoolOptions
    from superglue_ros.many_pairs.worker import Job, Worker

    config = _settled(config_of(args), args.gpus)
    selection = select([args.images], args.pairs, args.next)
    camera = cameras_of(args.calibration or [], 1)[0]
    work = Work.of(selection, args.shard, args.output)
    dropped = len(selection.pairs) - len(work.pairs)
    if dropped:
        print(f"{dropped} pairs were listed more than once")
    job = Job(
        images=work.images.resolve(),
        features=work.features.resolve(),
        matches=work.matches.resolve(),
        config=config,
        camera=camera,
        batch=args.batch,
        threads=args.cpus,
    )
    options = PoolOptions(
        workers=args.workers,
        cpus=args.cpus,
        gpus=args.gpus,
        address=args.address,
        timeout_s=args.timeout,
        attempts=args.attempts,
    )
    with work.alone():
        work.prepare(_made_by(config, camera))
        if not work.match_shards():
            print(f"all {len(work.pairs)} pairs are in {work.matches} already")
            return 0
        with Pool(options, Worker, job, work.names) as pool:
            encode, images = work.feature_shards(), len(work.names)
            left = sum(map(len, encode.values()))
            with counted(images, "features", "images", done=images - left) as advance:
                given_up = pool.run("encode", encode, advance)
            if not given_up:
                match, pairs = work.match_shards(), len(work.pairs)
                left = sum(map(len, match.values()))
                with counted(pairs, "matches", "pairs", done=pairs - left) as advance:
                    given_up = pool.run("match", match, advance)
    for number, reason in given_up.items():
        print(f"shard {number} failed {args.attempts} times: {reason}")
    if given_up:
        print("run the same command again to try these again")
        return 1
    print(f"{len(work.pairs)} pairs in {work.matches}")
    return 0


def _settled(config: Config, gpus: float) -> Config:
    """The same settings, without what each machine of a cluster would decide for itself."""
    device = ("cuda" if gpus else "cpu") if config.device == "auto" else config.device
    weights = config.matcher.weights
    if weights == "auto":
        weights = "small" if device == "cpu" else "wide"
    return replace(config, device=device, matcher=replace(config.matcher, weights=weights))


def _made_by(config: Config, camera: Any) -> Mapping[str, Any]:
    """Everything but the pairs that determines the results: settings, weights, calibration."""
    made_by: dict[str, Any] = {"settings": to_mapping(config)}
    made_by["method"] = MethodSpec(replace(config, device="cpu")).fingerprint()
    if camera is not None:
        made_by["camera"] = {
            "size": [camera.width, camera.height],
            "matrix": camera.matrix.tolist(),
            "distortion": camera.distortion.tolist(),
            "model": camera.model,
        }
    return made_by
