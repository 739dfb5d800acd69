"""Frozen dataclasses to JSON or a command line and back, strictly: no unknown or missing key."""

import dataclasses
import math
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unitone.errors import ConfigError

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values, nested ones included."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(kind: type[Config], values: Any, *, where: str) -> Config:
    """Build the dataclass ``kind`` from plain JSON values.

    Args:
        kind: a dataclass of scalars, literals, paths, tuples, optionals and other dataclasses.
        values: what `to_dict` returned.
        where: the file or field that errors name.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected an object, got {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - fields.keys())
    if unknown:
        known = ", ".join(sorted(fields))
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known are {known}")
    hints = get_type_hints(kind)
    built: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            built[name] = _build(hints[name], values[name], where=f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: field {name!r} is missing")
    return kind(**built)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _build(kind: Any, value: Any, *, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (kind,) = [part for part in parts if part is not type(None)]
        return _build(kind, value, where=where)
    if origin is Literal:
        if value not in parts:
            raise ConfigError(f"{where} must be one of {', '.join(map(str, parts))}, got {value!r}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(
            _build(parts[0], item, where=f"{where}[{index}]") for index, item in enumerate(items)
        )
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where=where)  # type: ignore[arg-type]
    return _scalar(kind, value, where=where)


def _scalar(kind: Any, value: Any, *, where: str) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, got {value}")
    return value


def option_value(argv: list[str] | None, option: str) -> str | None:
    """Return what follows ``option`` on a command line, before the rest of it is read."""
    import sys

    words = sys.argv[1:] if argv is None else argv
    for word, after in zip(words, [*words, ""][1:], strict=True):
        if word == option:
            return after
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def command_line(
    kind: Callable[..., Config],
    argv: list[str] | None,
    description: str | None,
    *,
    renamed: Mapping[str, str] = types.MappingProxyType({}),
) -> Config:
    """Return the dataclass ``kind`` as the command line says; nested options have no prefix.

    A usage error ends the process with status 2, ``--help`` with 0. ``renamed`` has the options
    that had another name before: they are refused with the new one.
    """
    import sys

    import tyro

    given = [word.partition("=")[0] for word in (sys.argv[1:] if argv is None else argv)]
    for word in given:
        if word in renamed:
            sys.stderr.write(f"error: {word} is called {renamed[word]} now\n")
            raise SystemExit(2)
        if word.startswith("--") and given.count(word) > 1:  # the parser would take the last one
            sys.stderr.write(f"error: {word} is given twice; give several values after one\n")
            raise SystemExit(2)
    flat = (tyro.conf.OmitArgPrefixes,)
    config = tyro.cli(kind, args=argv, description=description, config=flat)
    for name, value in _floats(config):
        if not math.isfinite(value):
            option = name.replace("_", "-")
            sys.stderr.write(f"error: --{option} must be a finite number, got {value}\n")
            raise SystemExit(2)
    return config


def _floats(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the floating-point numbers of a configuration, nested ones too, by field."""
    if isinstance(value, float):
        yield name, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _floats(getattr(value, field.name), field.name)
    elif isinstance(value, Mapping | tuple | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _floats(one, name)


def arguments(config: Any) -> list[str]:
    """Return the command line that says ``config``: the inverse of `command_line`.

    Only what differs from the defaults is said; nested options have no prefix.
    """
    return _arguments(config, defaults=None)


def _arguments(config: Any, *, defaults: Any) -> list[str]:
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if defaults is not None:
            default = getattr(defaults, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = field.default
        if dataclasses.is_dataclass(value):
            words += _arguments(value, defaults=None if default is dataclasses.MISSING else default)
        elif value != default:
            words += _option(field.name.replace("_", "-"), value)
    return words


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, Mapping):
        return [f"--{name}", *(_word(one) for pair in value.items() for one in pair)]
    if isinstance(value, tuple | list):
        return [f"--{name}", *map(_word, value)]
    word = _word(value)  # one that looks like an option has to be tied to its own
    return [f"--{name}={word}"] if word.startswith("-") else [f"--{name}", word]


def _word(value: Any) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)
