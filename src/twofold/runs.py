"""A run is a folder that one command wrote. It explains itself and is never overwritten by another.

config.toml      verb, resolved settings, versions, the command; written first
results.jsonl    scores, append-only (see results.py)
log.txt          what was said while it ran
finished.json    what the command gave back; its presence means done
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import _telling, files, settings
from twofold.errors import BadRun


@dataclass(frozen=True)
class Run:
    """An open run folder."""

    folder: Path
    verb: str

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the command gave back, or None while it is not done."""
        path = self.folder / "finished.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the run done."""
        files.write_json(self.folder / "finished.json", facts)


@contextmanager
def opened(folder: Path, verb: str, config: Any) -> Iterator[Run]:
    """Make or continue the run of `verb` with these settings in `folder`.

    Raises:
        BadRun: the folder holds something else, a run of other settings, or is being written by another process.
    """
    wanted = settings.as_mapping(config, identity_only=True)
    _claim(folder, verb, wanted)
    with _locked(folder):
        # Before the lock this was looked at for a quick answer; only what is seen under it holds.
        _claim(folder, verb, wanted)
        files.sweep(folder)
        if not (folder / "config.toml").exists():
            files.write_text(folder / "config.toml", _describe(verb, config))
        with _telling.to_file(folder / "log.txt"):
            yield Run(folder, verb)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's config.toml: `verb`, `settings`, `made`."""
    path = folder / "config.toml"
    if not path.exists():
        raise BadRun(f"{folder} is not a run: it has no config.toml. Give the --out folder of an earlier command.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRun(f"{path} is damaged: {error}. Use another folder.") from error


def progress(total: int, title: str, *, done: int = 0, unit: str = "images") -> Any:
    """A progress bar on stderr with rate and time left; silent where nobody reads it (`--quiet`, no terminal)."""
    from twofold._progress import Bar

    return Bar(total, title, done=done, unit=unit)


def _claim(folder: Path, verb: str, wanted: dict[str, Any]) -> None:
    """Check that `folder` may hold this run, and make it."""
    if folder.exists() and not folder.is_dir():
        raise BadRun(f"{folder} is a file. Give --out a folder that does not exist yet.")
    if (folder / "config.toml").exists():
        _check_same(folder, verb, wanted)
    elif folder.exists() and any(not _own(p) for p in folder.iterdir()):
        raise BadRun(f"{folder} holds files that no run wrote. Give --out an empty or a new folder.")
    folder.mkdir(parents=True, exist_ok=True)


def _own(path: Path) -> bool:
    """Whether a run killed at its very start may have left this."""
    return path.name in (".lock", "log.txt") or path.name.startswith(files.UNFINISHED)


def _check_same(folder: Path, verb: str, wanted: dict[str, Any]) -> None:
    found = read_config(folder)
    advice = "Give another --out, or the same settings to continue it."
    if found.get("verb") != verb:
        raise BadRun(f"{folder} holds a run of `{found.get('verb')}`, not of `{verb}`. {advice}")
    there = found.get("identity", {})
    changed = [n for n in sorted({*there, *wanted}) if there.get(n) != wanted.get(n)]
    if changed:
        told = "; ".join(f"{n} is {there.get(n, 'unset')} there, {wanted.get(n, 'unset')} here" for n in changed)
        raise BadRun(f"{folder} holds a run of other settings: {told}. {advice}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process."""
    with ExitStack() as held:
        try:
            held.enter_context(files.locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise BadRun(
                f"Another process is writing to {folder}. Wait for it, stop it, or give another --out."
            ) from error
        yield


def _describe(verb: str, config: Any) -> str:
    """The text of config.toml."""
    import tomli_w

    return tomli_w.dumps(
        {
            "verb": verb,
            "settings": settings.as_mapping(config),
            "identity": settings.as_mapping(config, identity_only=True),
            "made": {
                "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "python": platform.python_version(),
                "machine": platform.machine(),
                **versions(),
            },
        }
    )


def versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on."""
    wanted = ("twofold", "torch", "diffusers", "accelerate", "numpy", "scikit-learn", "zarr")
    return {name: importlib.metadata.version(name) for name in wanted}
