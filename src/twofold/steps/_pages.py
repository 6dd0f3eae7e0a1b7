"""Pages from templates, written where nobody else's files are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from twofold import files
from twofold.errors import BadRun

MARK = '<meta name="generator" content="twofold report">'


def check_out(out: Path) -> None:
    """Fail before any work where the page cannot or must not be written.

    Raises:
        BadRun: OUT is a file, may not be written, or holds files of others.
    """
    if out.exists() and not out.is_dir():
        raise BadRun(f"{out} is a file. Give --out a folder: a new one, an empty one, or that of a former page.")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise BadRun(
            f"{out} cannot be made or written: {there} does not allow it. Give --out a folder that you may write."
        )
    if out.exists() and _foreign(out):
        raise BadRun(f"{out} holds files that are no page of `twofold report`. Give --out a new or an empty folder.")


def _foreign(out: Path) -> bool:
    """Whether a folder has content, but no page of ours."""
    page = out / "index.html"
    if page.is_file():
        return not _ours(page)
    # The first page is written last: where writing was stopped, the others stand there without it.
    seen = [path for path in out.iterdir() if not path.name.startswith(".")]
    below = (path for top in seen for path in (top.rglob("[!.]*") if top.is_dir() else [top]))
    return any(not path.is_dir() and not _ours(path) for path in below)


def _ours(path: Path) -> bool:
    """Whether a file is a page of ours."""
    return path.suffix == ".html" and MARK in path.read_text(encoding="utf-8", errors="replace")


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page's text; everything that comes from a run is escaped."""
    return str(_environment().get_template(template).render(content))


@cache
def _environment() -> Any:
    """Templates, read and compiled once however many pages there are."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("twofold"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def write(out: Path, texts: Mapping[str, str]) -> str:
    """Write pages, the first one last, so that what it leads to is there; gives its path."""
    page = out / "index.html"
    try:
        for path, text in reversed([*texts.items()]):
            files.write_text(out / path, text)
    except OSError as error:
        raise BadRun(f"{page} cannot be written: {error.strerror}. Give --out a folder that you may write.") from error
    return str(page)
