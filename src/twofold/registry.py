"""The folder is the registry: what a room holds is what its folder holds.

A member is a file without a leading underscore other than `base.py`. Names, one-line descriptions and
declared constants are read from the source text, so that listing a room imports nothing.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from twofold.errors import unknown

ROOMS = ("backbones", "datasets", "heads", "analyses", "steps", "rivals", "workflows")


def names(room: str) -> list[str]:
    """Every member of a room, in alphabetical order."""
    files = (Path(__file__).parent / room).glob("*.py")
    return sorted(f.stem for f in files if not f.stem.startswith("_") and f.stem != "base")


def find(room: str, name: str) -> ModuleType:
    """Import one member of a room; an unknown name is an error that lists the near ones."""
    if name not in names(room):
        raise unknown(room.removesuffix("s"), name, names(room))
    return importlib.import_module(f"twofold.{room}.{name}")


def summary(room: str, name: str) -> str:
    """The first line of a member's docstring."""
    return (ast.get_docstring(_tree(room, name)) or "").partition("\n")[0]


def declared(room: str, constant: str) -> dict[str, Any]:
    """The value of a literal constant in each member that assigns it at the top, by member name."""
    found = {}
    for name in names(room):
        for statement in _tree(room, name).body:
            if isinstance(statement, ast.Assign) and _target(statement) == constant:
                found[name] = ast.literal_eval(statement.value)
    return found


def _target(statement: ast.Assign) -> str:
    target = statement.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


@cache
def _tree(room: str, name: str) -> ast.Module:
    return ast.parse((Path(__file__).parent / room / f"{name}.py").read_text(encoding="utf-8"))
