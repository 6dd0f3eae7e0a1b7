"""The arrows of the house point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import twofold

PACKAGE = Path(twofold.__file__).parent
FLOORS = [
    {"errors"},
    {"records", "files", "places", "chunks", "claims", "settings", "registry", "_telling"},
    {"noise", "pooling", "arrays", "store", "tables", "upkeep", "results", "runs", "_progress"},
    {"plots"},
    {"backbones", "datasets", "heads", "analyses"},
    {"steps"},
    {"rivals"},
    {"workflows", "estimators"},
    {"cli"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
ROOMS = ("backbones", "datasets", "heads", "analyses")
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imports(path: Path) -> list[list[str]]:
    """Every module of the project that a file imports, as its parts below `twofold`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name.split(".") for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [[*node.module.split("."), a.name] for a in node.names]
    return [parts[1:] for parts in found if parts[0] == "twofold" and len(parts) > 1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).with_suffix("").parts
    for there in imports(path):
        if there[0] not in FLOOR:
            continue  # a public name of the package itself
        where = f"{'/'.join(here)} imports {'.'.join(there)}"
        if there[0] == here[0]:
            # Within a room: its base, and machinery named with an underscore; never a sibling.
            assert len(there) > 1 and (there[1] == "base" or there[1].startswith("_")), where
        else:
            same_allowed = FLOOR[there[0]] == FLOOR[here[0]] and here[0] not in ROOMS
            assert FLOOR[there[0]] < FLOOR[here[0]] or same_allowed, where


def test_every_module_has_a_floor() -> None:
    tops = {p.relative_to(PACKAGE).with_suffix("").parts[0] for p in FILES}
    assert tops - {"templates"} == set(FLOOR)


def test_listing_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys; from twofold import cli, registry\n"
        "[registry.summary(r, n) for r in registry.ROOMS for n in registry.names(r)]\n"
        "cli.run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'zarr', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_steps_wait_with_heavy_imports() -> None:
    code = (
        "import sys; from twofold import registry\n"
        "[registry.find(r, n) for r in ('steps', 'rivals', 'workflows') for n in registry.names(r)]\n"
        "heavy = {'torch', 'diffusers', 'zarr', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_the_listed_ones() -> None:
    assert {n for n in dir(twofold) if not n.startswith("_")} == set(twofold.__all__)
    for name in twofold.__all__:
        assert getattr(twofold, name).__doc__
