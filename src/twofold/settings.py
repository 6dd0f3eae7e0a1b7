"""Settings: one frozen dataclass beside each step, one setting a line, its meaning and unit in the same place.

    @dataclass(frozen=True)
    class Config:
        data: str = setting(help="data set to read")
        batch: int = setting(64, help="images per update")

The command line, `--config FILE.toml` and Python callers all end in the same dataclass, checked by the same rules.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.errors import BadSetting, unknown

LONGEST_SHOWN = 40  # characters of a wrong value in a message


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    choices: tuple[str, ...] = (),
    positional: bool = False,
    least: float | None = None,
    most: float | None = None,
    identity: bool = True,
    none: str = "",
) -> Any:
    """A dataclass field that explains itself.

    Args:
        default: value when none is given; without one the setting is required.
        help: one sentence with the unit; the default is added to it where it is shown.
        choices: the allowed values of a text setting.
        positional: given by place instead of by `--name` on the command line.
        least, most: the smallest and the largest allowed number.
        identity: whether another value makes it another run (`device` does not).
        none: the word for "not given", where the default is None and may be said.
    """
    about = {
        "help": help,
        "choices": choices,
        "positional": positional,
        "least": least,
        "most": most,
        "identity": identity,
        "none": none,
    }
    return dataclasses.field(default=default, metadata=about)


def fields(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """A config's own settings, then those it shares with others."""
    found = dataclasses.fields(config)
    shared = {f.name for base in config.__bases__ if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)}
    return sorted(found, key=lambda f: f.name in shared)


def build(config: type[Any], values: Mapping[str, Any], verb: str) -> Any:
    """A checked `config` from names and values; values may be text, as a command line has them."""
    fields = {f.name: f for f in dataclasses.fields(config)}
    for name in values:
        if name not in fields:
            raise unknown(f"setting of {verb}", name, fields)
    missing = [f for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        wanted = " and ".join(_flag(f) for f in missing)
        raise BadSetting(f"{verb} needs {wanted}; `twofold {verb} --help` explains every setting.")
    kinds = typing.get_type_hints(config)
    return config(**{n: _value(fields[n], kinds[n], v, verb) for n, v in values.items()})


def as_mapping(config: Any, *, identity_only: bool = False) -> dict[str, Any]:
    """Names and plain values of a config; `None` is left out, since TOML has no word for it."""
    found = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value is None or (identity_only and not f.metadata["identity"]):
            continue
        found[f.name] = [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, tuple) else value
        if isinstance(value, Path):
            found[f.name] = str(value)
    return found


def read_file(path: Path) -> dict[str, Any]:
    """Settings from a TOML file; dashes and underscores in names are the same."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"--config {path} cannot be read: {error.strerror}. Give a TOML file.") from error
    except ValueError as error:
        raise BadSetting(f"--config {path} is not TOML: {error}. Write one `name = value` a line.") from error
    return {name.replace("-", "_"): value for name, value in content.items()}


def _flag(field: dataclasses.Field[Any]) -> str:
    name = field.name.replace("_", "-")
    return name.upper() if field.metadata["positional"] else f"--{name}"


def _value(field: dataclasses.Field[Any], kind: Any, given: Any, verb: str) -> Any:
    """One value, converted to its kind and held against what the setting allows."""
    if field.default is None and (given is None or given == (field.metadata["none"] or None)):
        return None
    try:
        value = _convert(kind, given)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"{verb} {_flag(field)} must be {_words(kind)}, not {_shown(given)!r}.") from error
    choices, least, most = (field.metadata[name] for name in ("choices", "least", "most"))
    for one in value if isinstance(value, tuple) else (value,):
        if choices and one not in choices:
            raise unknown(f"value for {_flag(field)}:", str(one), choices)
        if least is not None and not one >= least:
            raise BadSetting(f"{verb} {_flag(field)} must be at least {least}, not {_shown(given)}.")
        if most is not None and not one <= most:
            raise BadSetting(f"{verb} {_flag(field)} must be at most {most}, not {_shown(given)}.")
    return value


def _shown(given: Any) -> str:
    """What was given, cut where it is too long for one line."""
    text = str(given)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _convert(kind: Any, given: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return _convert(next(k for k in kind.__args__ if k is not type(None)), given)
    if typing.get_origin(kind) is tuple:
        parts = given.split(",") if isinstance(given, str) else list(given) if _many(given) else [given]
        if not parts or any(part == "" for part in parts):
            raise ValueError(given)
        return tuple(_convert(kind.__args__[0], part) for part in parts)
    if kind is bool:
        return _truth(given)
    if kind is int and isinstance(given, float) and not given.is_integer():
        raise ValueError(given)
    if kind in (int, float) and isinstance(given, bool):
        raise TypeError(given)
    return kind(given)


def _many(given: Any) -> bool:
    return isinstance(given, (list, tuple))


def _truth(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    raise TypeError(given)


def _words(kind: Any) -> str:
    """A type in words for a person."""
    if isinstance(kind, types.UnionType):
        return _words(next(k for k in kind.__args__ if k is not type(None)))
    if typing.get_origin(kind) is tuple:
        return f"{_words(kind.__args__[0])}, or several with commas between"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}[kind]
