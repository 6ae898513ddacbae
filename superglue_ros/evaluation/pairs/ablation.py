"""The ablations of table 4, as configurations of the network.

Weights of a variant are either trained for it (files named after it in a folder), or those of a
trained network with that part switched off (knock-out). The latter needs no training and shows what
the network relies on, not what it could have learned without that part.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from superglue_ros.errors import ConfigError
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.networks.weights import LoadedSuperGlue, load_superglue, save


@dataclass(frozen=True)
class Variant:
    """A row of table 4: its name, and its changes to the full network."""

    key: str
    title: str
    changes: tuple[tuple[str, object], ...]

    def apply(self, full: SuperGlueConfig) -> SuperGlueConfig:
        """The variant's configuration."""
        changes = dict(self.changes)
        if "layers" in changes:
            # "Smaller (3 layers)" of 9: a third.
            changes["layers"] = max(1, round(full.layers / 3))
        return replace(full, **changes)  # type: ignore[arg-type]

    def training_hint(self) -> str:
        """How a training recipe for the variant sets its ``network``, in words."""
        if not self.changes:
            return "the network settings of the recipe as they are"
        return ", ".join(
            f"network.{name}: "
            + ("a third of the full network's" if value is None else json.dumps(value))
            for name, value in self.changes
        )


VARIANTS = (
    Variant("no-gnn", "No Graph Neural Net", (("graph", False),)),
    Variant("no-cross-attention", "No cross-attention", (("cross_attention", False),)),
    Variant("no-position", "No positional encoding", (("keypoint_encoder", ()),)),
    Variant("smaller", "Smaller (a third of the layers)", (("layers", None),)),
    Variant("full", "Full", ()),
)


def variant(key: str) -> Variant:
    """A variant by its key; raises :class:`ConfigError` that names all."""
    for one in VARIANTS:
        if one.key == key:
            return one
    raise ConfigError(f"variant {key!r}: known are {', '.join(v.key for v in VARIANTS)}")


def trained_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Weights ``<variant>.safetensors`` in a folder, and the variants that have none.

    Raises :class:`ConfigError` on a file whose architecture is not its variant's.
    """
    found: dict[str, Path] = {}
    missing = []
    full = None
    for one in VARIANTS[::-1]:  # the full network first: the others are compared to it
        file = folder / f"{one.key}.safetensors"
        if not file.is_file():
            missing.append(one.key)
            continue
        config = load_superglue(file).network.config
        full = full or (config if one.key == "full" else None)
        if full is not None and one.apply(full) != config:
            raise ConfigError(
                f"{file} is not the {one.title!r} of full.safetensors: it has {config}, "
                f"it should have {one.apply(full)}"
            )
        found[one.key] = file
    return dict(reversed(found.items())), missing[::-1]


def knock_out(loaded: LoadedSuperGlue, one: Variant) -> LoadedSuperGlue:
    """The trained network with the variant's part switched off, nothing trained again."""
    config = one.apply(loaded.network.config)
    network = SuperGlue(config)
    kept = {k: v for k, v in loaded.network.state_dict().items() if k in network.state_dict()}
    network.load_state_dict(kept, strict=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    provenance = f"{one.title} of: {loaded.provenance}"
    return dataclasses.replace(loaded, network=network.eval(), provenance=provenance)


def write_knock_outs(weights: str, folder: Path) -> dict[str, Path]:
    """Files of all variants made from one trained network; raises :class:`ConfigError`."""
    loaded = load_superglue(weights)
    if not loaded.network.config.graph:
        raise ConfigError("these weights have no graph network: there is nothing to switch off")
    files = {}
    for one in VARIANTS:
        made = knock_out(loaded, one)
        file = folder / f"{one.key}.safetensors"
        with torch.no_grad():
            save(made.network, file, made.descriptor_kind, made.provenance)
        files[one.key] = file
    return files
