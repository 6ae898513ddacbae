"""Settings as typed, frozen trees of dataclasses: declared, read from YAML, overridden, checked.

The node's configuration, the recipes of training and the command lines all go through
:func:`build`. Every leaf may carry its description, range and choices (:func:`setting`). Unknown
keys, wrong types and values out of range raise :class:`ConfigError` naming the dotted key, so that
a typing mistake never passes silently.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from superglue_ros.errors import ConfigError
from superglue_ros.files import open_regular

T = TypeVar("T")

MAX_BYTES = 1 << 20
"""Maximum size of a settings file."""
MAX_DEPTH = 32
MAX_DIGITS = 3000
"""Of a whole number."""
MAX_VALUES = 20_000
"""Maximum number of values in a file with its aliases expanded."""
_OPENCV_HEADER = "%YAML:1.0"


def setting(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] = (),
    fixed: bool = False,
) -> Any:
    """A leaf of the tree: inclusive range ``low`` to ``high``, or ``choices``.

    ``choices`` may be a registry, which is read at each check. ``fixed`` settings shape the
    networks or the wiring: they can only change while the node is unconfigured. All others take
    effect on the next frame.
    """
    metadata = {
        "description": description,
        "low": low,
        "high": high,
        "choices": choices,
        "fixed": fixed,
    }
    return field(default=default, metadata=metadata)


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], type]]:
    """All settings of a configuration class as (dotted name, field, type)."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        kind = hints[item.name]
        if is_dataclass(kind):
            yield from leaves(kind, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + item.name, item, kind


# -- from values to a tree ---------------------------------------------------------------------


def build(cls: type[T], values: Any, name: str = "") -> T:
    """An instance of the dataclass ``cls`` from nested mappings; absent keys keep their defaults.

    Leaves may be numbers, texts, truth values, None, tuples (of these or of dataclasses) and
    mappings of names. ``name`` is the dotted name of the whole, for errors. Raises
    :class:`ConfigError` on unknown keys, missing ones without default, wrong types and values out
    of range.
    """
    if not isinstance(values, Mapping):
        what = name or "the file"
        raise ConfigError(f"{what} must be a mapping of settings, not {_shown(values)}")
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown setting {_join(name, key)}: known are {', '.join(sorted(known))}"
            )
    arguments = {}
    for key, item in known.items():
        if key in values:
            arguments[key] = _convert(hints[key], values[key], _join(name, key))
            _check_range(item, arguments[key], _join(name, key))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(name, key)} is missing")
    try:
        return cls(**arguments)
    except ConfigError as error:  # checks across several values, such as their order
        raise ConfigError(_join(name, error)) from error


def from_flat(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build ``cls`` from dotted names, as ROS parameters give them. Raises :class:`ConfigError`."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        _put(nested, name, value)
    return build(cls, nested)


def to_mapping(config: Any) -> dict[str, Any]:
    """Nested plain mappings of a configuration, for YAML and JSON."""
    return dataclasses.asdict(config)


def _join(name: str, key: object) -> str:
    text = key if isinstance(key, str) and len(key) < 80 else str(key)[:80]
    return f"{name}.{text}" if name else str(text)


def _convert(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        return build(kind, value, name)  # type: ignore[arg-type]
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _convert_tuple(typing.get_args(kind), value, name)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a mapping, not {_shown(value)}")
        inner = typing.get_args(kind)[1]
        return {str(k): _convert(inner, v, _join(name, k)) for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(k for k in typing.get_args(kind) if k is not type(None)), value, name)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError as error:
            raise ConfigError(f"{name} is too large a number: {_shown(value)}") from error
    if type(value) is not kind:
        raise ConfigError(f"{name} must be {kind.__name__}, not {_shown(value)}")
    return value


def _convert_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} must be a list, not {_shown(value)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{name} must have {len(kinds)} entries, not {len(value)}")
    return tuple(
        _convert(kind, entry, f"{name}.{i}")
        for i, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _check_range(item: dataclasses.Field[Any], value: Any, name: str) -> None:
    choices = tuple(item.metadata.get("choices") or ())
    if choices and value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {_shown(value)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, high = item.metadata.get("low"), item.metadata.get("high")
    below = low is not None and value < low
    infinite = isinstance(value, float) and not math.isfinite(value)
    if below or (high is not None and value > high) or infinite:
        raise ConfigError(f"{name} must be {_range_text(low, high)}, not {_shown(value)}")


def _range_text(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "a finite number"
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"from {low} to {high}"


def _shown(value: Any) -> str:
    """A value for an error, shortened."""
    return reprlib.repr(value)


# -- files ---------------------------------------------------------------------------------------


def load(path: str | Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into ``cls``, with ``overrides`` as of :func:`override`.

    Raises :class:`ConfigError` naming the file and the key.
    """
    values = override(read_yaml(path), overrides)
    try:
        return build(cls, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file. Raises :class:`ConfigError`."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            content = file.read()
        values = _parse(content.decode("utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read settings {path}: {_first_lines(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {_shown(values)}")
    return values


def _parse(text: str) -> Any:
    """Parse bounded YAML without duplicate keys. Raises ValueError and yaml.YAMLError."""
    if text.startswith(_OPENCV_HEADER):  # no directive that YAML knows
        text = "#" + text
    try:
        values = yaml.load(text, _Loader)
    except (OverflowError, RecursionError) as error:  # PyYAML, on numbers and escapes
        raise ValueError(f"a value cannot be read: {error}") from error
    _count(values, MAX_VALUES, MAX_DEPTH)
    return values


def _count(value: Any, left: int, depth: int) -> int:
    """Number of values still allowed; raises ValueError on too many or too deep nesting."""
    if left < 0 or depth < 0:
        raise ValueError("too many values, or nested too deeply: aliases that multiply?")
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set)):
        inner = value
    for one in inner:
        left = _count(one, left - 1, depth - 1)
    return left


class _Loader(yaml.SafeLoader):
    """Bounded in depth; a duplicate key is an error."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> Any:
        """Python makes giant numbers of hexadecimal digits, and no text of them for an error."""
        if len(node.value) > MAX_DIGITS:
            raise ValueError(f"a number has {len(node.value)} digits")
        return super().construct_yaml_int(node)

    def construct_opencv_matrix(self, node: Any) -> Any:
        """What OpenCV's FileStorage writes: ``rows``, ``cols``, ``dt``, ``data``."""
        return self.construct_mapping(node, deep=True)

    def flatten_mapping(self, node: Any) -> None:
        """Merge keys (`<<`) of merge keys multiply: bounded here, before they are counted."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise ValueError(f"merge keys give more than {MAX_VALUES} values")

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode) and not getattr(node, "checked", False):
            node.checked = True  # type: ignore[attr-defined]  # PyYAML expands `<<` into it
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen and key.value != "<<":
                    raise ValueError(f"{key.value[:80]} is given twice in one mapping")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _Loader.construct_opencv_matrix)
# YAML 1.1 requires a decimal point in 1.0e-4; users write 1e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _first_lines(error: Exception) -> str:
    return "\n".join(str(error).splitlines()[:6])[:600]


# -- command lines -------------------------------------------------------------------------------


def add_set_option(parser: Any, example: str, what: str = "setting") -> None:
    """Add ``--set NAME=VALUE`` to a command line; ``args.set`` goes to :func:`override`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"{what}, for example {example}; may be repeated",
    )


def override(values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Nested mappings with leaves replaced: ``words`` like ``matcher.name=ratio``.

    Values are YAML (``true``, ``0.5``, ``[1, 2]``); a number among the names is an index of a list
    (``stages.0.steps=10``). Raises :class:`ConfigError`. :func:`build` checks that the setting
    exists and that the value is valid.
    """
    changed = copy.deepcopy(dict(values))
    for word in words:
        name, value = split_word(word)
        try:
            parsed = _parse(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {name}: {_first_lines(error)}") from error
        _put(changed, name, parsed)
    return changed


def split_word(word: str) -> tuple[str, str]:
    """Name and value of a ``NAME=VALUE`` word. Raises :class:`ConfigError`."""
    name, sign, value = word.partition("=")
    if not sign or not name:
        raise ConfigError(
            f"--set {word!r} is not of the form NAME=VALUE, for example matcher.name=mutual"
        )
    return name, value


def shorthands(args: argparse.Namespace, leaf_of: Mapping[str, str]) -> list[str]:
    """Words for :func:`override` of those options in ``args`` that were given.

    ``leaf_of`` maps an option's name in ``args`` to the dotted name of its setting.
    """
    given = {leaf: getattr(args, option) for option, leaf in leaf_of.items()}
    return [f"{leaf}={_as_yaml(value)}" for leaf, value in given.items() if value is not None]


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n...")[0].strip()


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the leaf of a dotted name in nested mappings and lists."""
    *path, last = name.split(".")
    node: Any = values
    for part in path:
        if isinstance(node, list):
            node = node[_place(node, part, name)]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"{name}: {part} is a single value and has no settings below it")
    node[_place(node, last, name) if isinstance(node, list) else last] = value


def _place(entries: list[Any], part: str, name: str) -> int:
    if not part.isdecimal() or int(part) >= len(entries):
        raise ConfigError(f"{name}: {part!r} is no place in a list of {len(entries)} entries")
    return int(part)
