"""Reading and writing network weights: strict, recognised by their keys, with provenance.

Read: our own safetensors; the key sets of the original SuperPoint and SuperGlue, of those in
``transformers`` and of the open SuperPoint (see ``weight_layouts.py``), as ``.safetensors``,
``.pth`` or ``.pt``. A ``.pth`` file is read with ``weights_only``, so it cannot run code. Anything
that does not fit exactly raises :class:`WeightsError` naming the file, the key and the fix.

Our own files are safetensors whose metadata holds the format version, the network's name, its
architecture as JSON, the kind of its descriptors, where the weights come from, and the SHA-256 of
all of it: a flipped bit is never noticed by its effect. Files of other origin have no checksum,
which the log says; their network must answer a test input (``response.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import reprlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from superglue_ros.errors import WeightsError
from superglue_ros.files import open_regular, replace_atomically
from superglue_ros.networks.match_filter import MatchFilter, MatchFilterConfig
from superglue_ros.networks.places import PlaceAggregation, PlacesConfig
from superglue_ros.networks.refinement import PatchRegistration, PatchRegistrationConfig
from superglue_ros.networks.response import AnyNetwork, check_response
from superglue_ros.networks.superglue import (
    SuperGlue,
    SuperGlueConfig,
)
from superglue_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superglue_ros.networks.weight_layouts import (
    Recipe,
    Recipes,
    is_bundled_detector,
    superglue_layout,
    superpoint_layout,
)
from superglue_ros.settings import build

FORMAT_VERSION = "2"
OLD_VERSIONS = ("1",)
"""Without a checksum."""
MAX_BYTES = 1 << 30
"""Larger files are no weights of these networks; the largest published one has 50 MB."""
_MOST_PARAMETERS = 200_000_000
_MOST_LAYERS = 64
_LONGEST_LIST, _LONGEST_NAME, _LARGEST_NUMBER = 16, 32, 4096  # in an architecture
PACKAGED = Path(__file__).parents[1] / "weights"
PACKAGED_SUPERGLUE = ("small", "wide")
"""The package's matchers by name: ``small`` for a CPU, ``wide`` for a GPU."""

log = logging.getLogger(__name__)

Network = TypeVar(
    "Network", SuperPoint, SuperGlue, PatchRegistration, MatchFilter, PlaceAggregation
)


@dataclass(frozen=True)
class LoadedSuperPoint:
    """A SuperPoint in evaluation mode; ``kind`` names its descriptors."""

    network: SuperPoint
    kind: str
    provenance: str


@dataclass(frozen=True)
class LoadedSuperGlue:
    """A SuperGlue in evaluation mode; ``descriptor_kind`` names the descriptors it was made for."""

    network: SuperGlue
    descriptor_kind: str
    provenance: str


@dataclass(frozen=True)
class LoadedRefinement:
    """A network that refines matches, in evaluation mode."""

    network: PatchRegistration
    provenance: str


@dataclass(frozen=True)
class LoadedMatchFilter:
    """A filter of matches in evaluation mode."""

    network: MatchFilter
    provenance: str


@dataclass(frozen=True)
class LoadedPlaces:
    """An aggregation for place recognition in evaluation mode, of descriptors of one kind."""

    network: PlaceAggregation
    descriptor_kind: str
    provenance: str


def superpoint_file(path: str | Path) -> Path:
    """``path``; where it is empty, the package's own file."""
    return Path(path) if path else PACKAGED / "superpoint.safetensors"


def load_superpoint(path: str | Path = "") -> LoadedSuperPoint:
    """Read SuperPoint weights; an empty path takes the package's own.

    Raises :class:`WeightsError` on anything but a complete, exactly fitting file.
    """
    file = superpoint_file(path)
    metadata, state = _read(file)
    if _is_own(file, metadata):
        network, kind = _load_own(file, metadata, state, SuperPoint, SuperPointConfig)
        return LoadedSuperPoint(network, kind, metadata.get("provenance", ""))
    with _naming(file):
        layout = superpoint_layout(state)
    if layout is None:
        if superglue_layout(state) is not None:
            raise WeightsError(f"{file} holds a SuperGlue: give it as matcher.weights")
        raise WeightsError(f"{file}: {_unknown(state)} as a SuperPoint")
    kind, config, recipes = layout
    if any(is_bundled_detector(key) for key in state):
        state = {key: value for key, value in state.items() if is_bundled_detector(key)}
    network = SuperPoint(config)
    _fill(file, network, state, recipes)
    _check_by_response(file, network)
    return LoadedSuperPoint(network, kind, str(file))


def superglue_name(weights: str, device: torch.device | None = None) -> str:
    """``weights`` with ``auto`` (or nothing) made definite.

    That is ``wide`` if ``device`` is a GPU, where both take nearly the same time, else ``small``.
    """
    if weights not in ("", "auto"):
        return weights
    return "wide" if device is not None and device.type == "cuda" else "small"


def superglue_file(weights: str | Path, device: torch.device | None = None) -> Path:
    """The file of ``weights``: a path, ``small``, ``wide`` or ``auto`` (:func:`superglue_name`)."""
    name = superglue_name(str(weights), device)
    return PACKAGED / f"superglue_{name}.safetensors" if name in PACKAGED_SUPERGLUE else Path(name)


def load_superglue(
    weights: str | Path = "auto", device: torch.device | None = None
) -> LoadedSuperGlue:
    """Read the SuperGlue weights that :func:`superglue_file` finds.

    Raises :class:`WeightsError` on anything but a complete, exactly fitting file.
    """
    file = superglue_file(weights, device)
    metadata, state = _read(file)
    if _is_own(file, metadata):
        network, kind = _load_own(file, metadata, state, SuperGlue, SuperGlueConfig)
        return LoadedSuperGlue(network, kind, metadata.get("provenance", ""))
    with _naming(file):
        layout = superglue_layout(state)
    if layout is None:
        if superpoint_layout(state) is not None:
            raise WeightsError(f"{file} holds a SuperPoint: give it as front_end.weights")
        raise WeightsError(f"{file}: {_unknown(state)} as a SuperGlue")
    kind, config, recipes = layout
    state = {key: value for key, value in state.items() if not is_bundled_detector(key)}
    network = SuperGlue(config)
    _fill(file, network, state, recipes)
    _check_by_response(file, network)
    return LoadedSuperGlue(network, kind, str(file))


def load_refinement(path: str | Path = "") -> LoadedRefinement:
    """Read the weights of the network that refines matches; empty takes the package's own.

    Raises :class:`WeightsError` on anything but a complete, exactly fitting file.
    """
    file = Path(path) if path else PACKAGED / "refinement.safetensors"
    metadata, state = _read_own(file)
    network, _ = _load_own(file, metadata, state, PatchRegistration, PatchRegistrationConfig)
    return LoadedRefinement(network, metadata.get("provenance", ""))


def match_filter_file(name: str, weights: str | Path = "auto") -> Path:
    """``weights``; where it is ``auto`` or empty, the package's own file of filter ``name``."""
    return Path(weights) if str(weights) not in ("", "auto") else PACKAGED / f"{name}.safetensors"


def load_match_filter(name: str, weights: str | Path = "auto") -> LoadedMatchFilter:
    """Read the weights of a filter of matches, ``pointcn`` or ``oanet``: :func:`match_filter_file`.

    Raises :class:`WeightsError` on anything but a complete, exactly fitting file.
    """
    file = match_filter_file(name, weights)
    metadata, state = _read_own(file)
    network, _ = _load_own(file, metadata, state, MatchFilter, MatchFilterConfig)
    return LoadedMatchFilter(network, metadata.get("provenance", ""))


def load_places(path: str | Path = "") -> LoadedPlaces:
    """Read the weights of an aggregation for place recognition; empty takes the package's own.

    Raises :class:`WeightsError` on anything but a complete, exactly fitting file.
    """
    file = Path(path) if path else PACKAGED / "places.safetensors"
    metadata, state = _read_own(file)
    network, kind = _load_own(file, metadata, state, PlaceAggregation, PlacesConfig)
    return LoadedPlaces(network, kind, metadata.get("provenance", ""))


def save(
    network: AnyNetwork,
    path: str | Path,
    descriptor_kind: str,
    provenance: str,
    half: bool = False,
) -> None:
    """Write our own format atomically: a reader never sees an incomplete file.

    ``half`` stores the layers' weights as float16, half the size; they are read back as float32.
    Biases and batch norm statistics, small but of any magnitude, stay float32.
    """
    state = {
        key: value.detach()
        .to("cpu", torch.float16 if half and value.dim() > 1 else torch.float32)
        .contiguous()
        for key, value in network.state_dict().items()
        if not _is_counter(key)
    }
    metadata = {
        _FORMAT_KEY: FORMAT_VERSION,
        "network": type(network).__name__,
        "architecture": json.dumps(dataclasses.asdict(network.config)),
        "descriptor_kind": descriptor_kind,
        "provenance": provenance,
    }
    metadata["sha256"] = digest(state, metadata)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save(state, metadata)
    replace_atomically(path, lambda name: _write(name, data))


def digest(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 (hexadecimal) of tensors and metadata, without the entry ``sha256``."""
    facts = {key: value for key, value in metadata.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(state):
        value = state[key].contiguous()
        found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


_FORMAT_KEY = "superglue_ros_format"
_OTHER_KEYS = {"network", "architecture", "descriptor_kind", "provenance", "sha256"}


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata (empty but for safetensors) and tensors of a file."""
    try:
        with open_regular(file, MAX_BYTES) as opened_file:
            _check_unpacked_size(opened_file)
        if file.suffix == ".safetensors":
            with safetensors.safe_open(str(file), framework="pt") as opened:
                state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
                return dict(opened.metadata() or {}), state
        if file.suffix in (".pth", ".pt", ".bin"):
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise WeightsError(
                f"{file} has the unknown ending {file.suffix!r}: give .safetensors, .pth or .pt"
            )
    except WeightsError:
        raise
    except FileNotFoundError:
        raise WeightsError(f"weights file {file} does not exist: check the path") from None
    except Exception as error:  # the unpickler raises any exception on other bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{file} cannot be read as weights ({reason}): the file is truncated, damaged or of "
            f"another kind, fetch it again"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{file} holds a {type(content).__name__}, not parameters by name: give a file that "
            f"holds the network's state_dict and nothing else"
        )
    return {}, dict(content)


def _is_own(file: Path, metadata: Mapping[str, str]) -> bool:
    """Whether a file is in our format.

    Raises :class:`WeightsError` on one that is but for the entry that says so: with a bit flipped
    in that name it would pass for a file of other origin, which has no checksum.
    """
    own = _FORMAT_KEY in metadata
    if not own and len(_OTHER_KEYS & metadata.keys()) > 1:
        raise WeightsError(f"{file} is damaged: {_FORMAT_KEY} is missing. Fetch it again")
    return own


def _read_own(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file that this package wrote; raises :class:`WeightsError`."""
    metadata, state = _read(file)
    if not _is_own(file, metadata):
        raise WeightsError(f"{file} has no description of its network: train it with this package")
    return metadata, state


def _load_own(
    file: Path,
    metadata: Mapping[str, str],
    state: Mapping[str, Tensor],
    network_type: type[Network],
    config_type: type[Any],
) -> tuple[Network, str]:
    version, name = metadata[_FORMAT_KEY], metadata.get("network", "")
    if version not in (FORMAT_VERSION, *OLD_VERSIONS):
        raise WeightsError(
            f"{file} has format version {version}, this package reads {FORMAT_VERSION}: "
            f"use the release of superglue_ros that wrote it, or train again"
        )
    unchecked = version in OLD_VERSIONS and "sha256" not in metadata
    if not unchecked and metadata.get("sha256") != digest(state, metadata):
        raise WeightsError(f"{file} is damaged: its checksum does not fit. Fetch it again")
    if name != network_type.__name__:
        raise WeightsError(
            f"{file} holds a {name or 'nameless network'}, not a "
            f"{network_type.__name__}: front_end.weights takes a SuperPoint, "
            f"matcher.weights the network that matcher.name says"
        )
    described = network_type not in (PatchRegistration, MatchFilter)  # these read no descriptors
    if described and not metadata.get("descriptor_kind"):
        raise WeightsError(f"{file} lacks descriptor_kind in its metadata: save it again")
    try:
        values = json.loads(metadata["architecture"])
        _check_architecture(values)
        config = build(config_type, values)
        with torch.device("meta"):  # takes no memory
            size = sum(parameter.numel() for parameter in network_type(config).parameters())
        if size > _MOST_PARAMETERS:
            raise ValueError(f"{size} parameters are more than {_MOST_PARAMETERS}")
        network = network_type(config)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{file} describes no architecture this package knows ({error}): save it again"
        ) from error
    recipes = {
        key: Recipe((key,), lambda x: x) for key in network.state_dict() if not _is_counter(key)
    }
    _fill(file, network, state, recipes)
    if unchecked:
        _check_by_response(file, network)
    return network, metadata.get("descriptor_kind", "")


def _check_architecture(values: Any) -> None:
    """Raise ValueError where a value would make a network of absurd size."""
    for key, value in dict(values).items():
        entries = value if isinstance(value, list) else [value]
        if len(entries) > _LONGEST_LIST or not all(map(_is_moderate, entries)):
            raise ValueError(f"{key} is {reprlib.repr(value)}")
    for key in ("layers", "blocks", "cluster_blocks", "stages"):
        if values.get(key, 0) > _MOST_LAYERS:
            raise ValueError(f"{key} is {values[key]}")


def _is_moderate(entry: Any) -> bool:
    if isinstance(entry, str):
        return len(entry) <= _LONGEST_NAME
    if isinstance(entry, float):
        return abs(entry) <= _LARGEST_NUMBER  # neither NaN nor infinite
    return isinstance(entry, int) and 0 <= entry <= _LARGEST_NUMBER


def _check_unpacked_size(file: BinaryIO) -> None:
    """Raise OSError where an archive (.pth) unpacks to more than a file may have."""
    if file.read(4) != b"PK\x03\x04":
        return
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise OSError(f"it unpacks to {size} bytes, more than the limit of {MAX_BYTES}")


def _check_by_response(file: Path, network: AnyNetwork) -> None:
    """What can be checked of a file without a checksum."""
    with _naming(file):
        check_response(network)
    log.warning("%s has no checksum: damage that leaves the network answering is not noticed", file)


def _fill(file: Path, network: Network, state: Mapping[str, Tensor], recipes: Recipes) -> None:
    """Set every parameter of ``network`` from ``state``, refusing any difference."""
    used = {key for recipe in recipes.values() for key in recipe.keys}
    missing = sorted(used - state.keys())
    if missing:
        raise WeightsError(f"{file} lacks {_some(missing)}: it is incomplete, fetch it again")
    extra = sorted(key for key in state.keys() - used if not _is_counter(key))
    if extra:
        raise WeightsError(
            f"{file} has unknown keys {_some(extra)}: it was made for another architecture"
        )
    target = network.state_dict()
    for key, value in target.items():
        if _is_counter(key):
            continue
        recipe = recipes.get(key)
        if recipe is None:
            raise WeightsError(
                f"{file} has nothing for {key}: it was made for another architecture"
            )
        names = ", ".join(recipe.keys)
        with _naming(file):
            try:
                made = recipe.combine(*(state[name] for name in recipe.keys))
            except (RuntimeError, ValueError) as error:
                if isinstance(error, WeightsError):
                    raise
                raise WeightsError(f"key {names} has a shape that does not fit") from error
        if made.shape != value.shape:
            raise WeightsError(
                f"{file}: key {names} has shape {tuple(made.shape)} where {tuple(value.shape)} is "
                f"needed: it was made for another architecture"
            )
        if not made.is_floating_point() or not bool(torch.isfinite(made).all()):
            raise WeightsError(
                f"{file}: key {names} has values that are NaN or infinite: "
                f"the training diverged or the file is damaged"
            )
        target[key] = made.to(value.dtype)
    network.load_state_dict(target, strict=True)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the file's name before the message of a :class:`WeightsError` raised inside."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error


def _write(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    os.chmod(name, 0o644)  # a temporary file is private; weights are not


def _is_counter(key: str) -> bool:
    """Batch norm's step counter, which inference does not read and not every file has."""
    return key.endswith("num_batches_tracked")


def _unknown(state: Mapping[str, Tensor]) -> str:
    return f"unknown layout with keys {_some(sorted(state))}, cannot be read"


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"
