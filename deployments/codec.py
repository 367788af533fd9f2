"""Frozen dataclasses to plain JSON values and back, strictly.

PURE. `from_json` refuses a missing required key, and ignores keys it does not know, so that an older
process can read what a newer one wrote.
"""

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_json(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers for a dataclass tree."""
    kind = type(value)
    if kind in _PLAIN:  # most of what there is, and ten thousand replicas are told each second
        return value
    if dataclasses.is_dataclass(kind):
        return {name: to_json(getattr(value, name)) for name in _names(kind)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(cls))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def from_json(cls: type[T], data: Any) -> T:
    """The inverse of `to_json`. Raises ValueError that names the class and the key."""
    return typing.cast(T, _convert(cls, data, cls.__name__))


def _convert(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if data is None else _convert(options[0], data, where)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{where}: a list is needed, got {type(data).__name__}")
        return tuple(_convert(item, value, f"{where}[{i}]") for i, value in enumerate(data))
    if origin is dict:
        item = typing.get_args(kind)[1]
        if not isinstance(data, dict):
            raise ValueError(f"{where}: an object is needed, got {type(data).__name__}")
        return {key: _convert(item, value, f"{where}.{key}") for key, value in data.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(data, dict):
            raise ValueError(f"{where}: an object is needed, got {type(data).__name__}")
        hints = _hints(kind)
        known = {
            f.name: _convert(hints[f.name], data[f.name], f"{where}.{f.name}")
            for f in dataclasses.fields(kind)
            if f.name in data
        }
        try:
            return kind(**known)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind is float and isinstance(data, int):
        return float(data)
    return data
