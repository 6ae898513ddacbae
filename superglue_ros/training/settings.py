"""Recipes of training as typed trees: YAML in, unknown keys and wrong types raise."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from superglue_ros.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: Any, name: str = "") -> T:
    """An instance of the dataclass ``cls`` from nested mappings; absent keys keep their defaults.

    Beside what the node's configuration knows, recipes hold tuples (of numbers, names or
    dataclasses) and mappings of names to numbers. Raises :class:`ConfigError` on unknown keys,
    missing ones without default, wrong types and values out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name or 'the recipe'} must be a mapping of settings, not {values!r}")
    hints = get_type_hints(cls)
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
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
    except ConfigError as error:  # what only the whole can say, such as an order of two values
        raise ConfigError(_join(name, error)) from error


def load(path: str | Path, cls: type[T]) -> T:
    """Read a YAML recipe; raises :class:`ConfigError` naming the file and the key."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read recipe {path}: {error}") from error
    try:
        return build(cls, values or {})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _convert(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, name)  # type: ignore[arg-type]
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _convert_tuple(typing.get_args(kind), value, name)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a mapping, not {value!r}")
        inner = typing.get_args(kind)[1]
        return {str(k): _convert(inner, v, _join(name, k)) for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(k for k in typing.get_args(kind) if k is not type(None)), value, name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name} must be {kind.__name__}, not {value!r}")
    return value


def _convert_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} must be a list, not {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{name} must have {len(kinds)} entries, not {len(value)}")
    return tuple(
        _convert(kind, entry, f"{name}[{i}]")
        for i, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _check_range(item: dataclasses.Field[Any], value: Any, name: str) -> None:
    choices = tuple(item.metadata.get("choices") or ())
    if choices and value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, high = item.metadata.get("low"), item.metadata.get("high")
    below = low is not None and value < low
    if below or (high is not None and value > high) or not math.isfinite(value):
        raise ConfigError(f"{name} = {value} is outside [{low}, {high}]")
