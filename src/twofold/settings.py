"""Settings: one frozen dataclass beside each step, one setting a line, its meaning and unit in the same place.

    @dataclass(frozen=True)
    class Config(Settings):
        data: str = setting(help="data set to read")
        batch: int = setting(64, help="images per update", least=1)

The command line, `--config FILE.toml` and Python callers all end in the same dataclass, which checks itself when it is
made: whoever holds a Config holds values of the right kinds within their bounds.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.errors import BadSetting, unknown

LONGEST_SHOWN = 40  # characters of a wrong value in a message
_BETWEEN = re.compile(r",(?![^(]*\))")  # the commas of a list, but not those in `mlp?hidden=(2048,2048)`


class Settings:
    """What every Config is: its values are converted to their kinds and held against what each setting allows.

    Text is taken wherever a command line may have it: `batch="8"` is 8, `t="90,150"` is (90.0, 150.0).
    """

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            BadSetting, UnknownName: the first value that is not allowed.
        """
        kind = type(self)
        kinds, verb = typing.get_type_hints(kind), kind.__module__.rpartition(".")[2]
        for f in dataclasses.fields(kind):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, _value(f, kinds[f.name], getattr(self, f.name), verb))


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
    alone: str = "",
    repeats: bool = False,
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
        alone: the word that means all or nothing in a list, and so stands there alone.
        repeats: whether a list may say the same value twice; elsewhere the second one is dropped.
    """
    about = {
        "help": help,
        "choices": choices,
        "positional": positional,
        "least": least,
        "most": most,
        "identity": identity,
        "none": none,
        "alone": alone,
        "repeats": repeats,
    }
    return dataclasses.field(default=default, metadata=about)


def borrowed(config: type[Any], name: str) -> Any:
    """The same setting as another verb has, for a workflow that passes it on to that verb."""
    found = config.__dataclass_fields__[name]
    return dataclasses.field(default=found.default, metadata=found.metadata)


def fields(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """A config's own settings, then those it shares with others."""
    found = dataclasses.fields(config)
    shared = {f.name for base in config.__bases__ if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)}
    return sorted(found, key=lambda f: f.name in shared)


def build(config: type[Any], values: Mapping[str, Any], verb: str) -> Any:
    """A `config` from names and values; an unknown or a missing name is an error, values are checked by `Settings`."""
    fields = {f.name: f for f in dataclasses.fields(config)}
    for name in values:
        if name not in fields:
            raise unknown(f"setting of {verb}", name, fields)
    missing = [f for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        wanted = " and ".join(_flag(f) for f in missing)
        raise BadSetting(f"{verb} needs {wanted}; `twofold {verb} --help` explains every setting.")
    return config(**values)


def as_mapping(config: Any, *, identity_only: bool = False) -> dict[str, Any]:
    """Names and plain values of a config; `None` is left out, since TOML has no word for it."""
    found = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value is None or (identity_only and not f.metadata["identity"]):
            continue
        found[f.name] = _plain(value)
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


def defaults(config: Any) -> dict[str, Any]:
    """Names and plain values of a config's own settings that are not given, as `as_mapping` has them."""
    found = {}
    for f in dataclasses.fields(config):
        if f.metadata["identity"] and f.default is not None and f.default is not dataclasses.MISSING:
            found[f.name] = _plain(f.default)
    return found


def _plain(value: Any) -> Any:
    """As TOML has it."""
    if isinstance(value, tuple):
        return [str(v) if isinstance(v, Path) else v for v in value]
    return str(value) if isinstance(value, Path) else value


def _flag(field: dataclasses.Field[Any]) -> str:
    name = field.name.replace("_", "-")
    return name.upper() if field.metadata["positional"] else f"--{name}"


def _value(field: dataclasses.Field[Any], kind: Any, given: Any, verb: str) -> Any:
    """One value, converted to its kind and held against what the setting allows."""
    if field.default is None and (given is None or given == (field.metadata["none"] or None)):
        return None
    if _many(given) and not given and field.default == ():
        return ()
    if _many(given) and not given and field.default is dataclasses.MISSING:
        raise BadSetting(f"{verb} needs {_flag(field)}: one or several.")
    try:
        value = _convert(kind, given)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"{verb} {_flag(field)} must be {_words(kind)}, not {_shown(repr(given))}.") from error
    several = value if isinstance(value, tuple) else (value,)
    for one in several:
        _check(field, one, given, verb)
    alone = field.metadata["alone"]
    if alone in several and set(several) != {alone}:
        raise BadSetting(f"{verb} {_flag(field)} {alone} stands alone, not among others. Give {alone} or the others.")
    return tuple(dict.fromkeys(several)) if isinstance(value, tuple) and not field.metadata["repeats"] else value


def _check(field: dataclasses.Field[Any], one: Any, given: Any, verb: str) -> None:
    """Hold one value, or one of several, against what the setting allows."""
    choices, least, most = (field.metadata[name] for name in ("choices", "least", "most"))
    if choices and one not in choices:
        raise unknown(f"value for {_flag(field)}:", str(one), choices)
    if least is not None and not one >= least:
        raise BadSetting(f"{verb} {_flag(field)} must be at least {least}, not {_shown(given)}.")
    if most is not None and not one <= most:
        raise BadSetting(f"{verb} {_flag(field)} must be at most {most}, not {_shown(given)}.")


def _shown(given: Any) -> str:
    """What was given, cut where it is too long for one line."""
    text = str(given)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _convert(kind: Any, given: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return _convert(next(k for k in kind.__args__ if k is not type(None)), given)
    if typing.get_origin(kind) is tuple:
        parts = _BETWEEN.split(given) if isinstance(given, str) else list(given) if _many(given) else [given]
        if not parts or any(part == "" for part in parts):
            raise ValueError(given)
        return tuple(_convert(kind.__args__[0], part) for part in parts)
    if kind is bool:
        return _truth(given)
    if kind is int and isinstance(given, float) and not given.is_integer():
        raise ValueError(given)
    if not isinstance(given, _TAKEN[kind]) or isinstance(given, bool):
        raise TypeError(given)
    if kind is Path and not str(given):
        raise ValueError(given)
    return kind(given)


# What becomes a value of each kind.
_TAKEN: dict[Any, tuple[type, ...]] = {
    int: (numbers.Real, str),
    float: (numbers.Real, str),
    str: (str, numbers.Real, os.PathLike),
    Path: (str, os.PathLike),
}


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
