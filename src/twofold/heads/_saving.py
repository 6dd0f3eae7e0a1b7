"""Heads on disk: what `fit` learned as named tensors and plain values, and back; nothing is pickled.

Whatever a head's names with a `_` at their end hold is kept: arrays, tensors, numbers, tuples, dictionaries, and the
room's own dataclasses of these.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.heads import base
from twofold.heads.base import Head

ROOM = "twofold.heads."


def learned(head: Head) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that a fitted head learned.

    Returns:
        tensors by name, and what JSON can hold: the rest, and where each tensor belongs.

    Raises:
        NotFitted: before `fit`.
        TypeError: it learned something of another kind.
    """
    head.check_fitted()
    tensors: dict[str, Tensor] = {}
    own = {name: value for name, value in vars(head).items() if name.endswith("_") and not name.startswith("_")}
    return tensors, {name: _told(value, name, tensors) for name, value in sorted(own.items())}


def restored(name: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Head:
    """The head that `learned` took apart, from its name in `heads.base.load`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: `told` is not what `learned` gave.
    """
    head = base.load(name)
    for attribute, value in told.items():
        if not attribute.endswith("_") or attribute.startswith("_"):
            raise ValueError(f"{attribute} is not a learned name")
        setattr(head, attribute, _value(value, tensors))
    head.check_fitted()
    return head


def _told(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of a value; its tensors go to `tensors` under names that begin with `where`."""
    if isinstance(value, torch.Tensor):
        tensors[where] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": where}
    if isinstance(value, np.ndarray):
        tensors[where] = torch.from_numpy(np.array(value, order="C"))
        return {"array": where}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [_told(one, f"{where}/{k}", tensors) for k, one in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": {name: _told(one, f"{where}/{name}", tensors) for name, one in value.items()}}
    if is_dataclass(value) and type(value).__module__.startswith(ROOM):
        own = {f.name: _told(getattr(value, f.name), f"{where}/{f.name}", tensors) for f in fields(value)}
        return {"record": f"{type(value).__module__.removeprefix(ROOM)}.{type(value).__name__}", "fields": own}
    raise TypeError(f"{where} is a {type(value).__name__}, which a classifier's folder cannot hold.")


def _value(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_told`."""
    if not isinstance(told, dict):
        return told
    match told:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"array": str(name)}:
            return tensors[name].numpy()
        case {"tuple": list(parts)}:
            return tuple(_value(one, tensors) for one in parts)
        case {"list": list(parts)}:
            return [_value(one, tensors) for one in parts]
        case {"dict": dict(parts)}:
            return {name: _value(one, tensors) for name, one in parts.items()}
        case {"record": str(name), "fields": dict(parts)}:
            return _kind(name)(**{field: _value(one, tensors) for field, one in parts.items()})
    raise ValueError(f"it holds a value of no known kind: {', '.join(told)}")


def _kind(name: str) -> type[Any]:
    """A dataclass of this room by FILE.NAME; a file from elsewhere must not name anything else."""
    file, _, inner = name.partition(".")
    if not (file.isidentifier() and inner.isidentifier()):
        raise ValueError(f"{name!r} is no record of a head")
    try:
        found = getattr(importlib.import_module(ROOM + file), inner, None)
    except ImportError as error:
        raise ValueError(f"{name!r} is no record of a head") from error
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{name!r} is no record of a head")
    return found
