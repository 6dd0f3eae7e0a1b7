"""A run is a folder that one command wrote. It explains itself and is never overwritten by another.

config.toml      verb, resolved settings, versions, the command; written first
results.jsonl    scores, append-only (see results.py)
log.txt          what was said while it ran
finished.json    what the command gave back; its presence means done
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import files, settings
from twofold.errors import BadRun

log = logging.getLogger("twofold")


@dataclass(frozen=True)
class Run:
    """An open run folder.

    Attributes:
        folder: where it is.
        verb: the command that writes it.
        writes: whether this process writes; of several that make one run together, only the first does.
    """

    folder: Path
    verb: str
    writes: bool = True

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the command gave back, or None while it is not done."""
        path = self.folder / "finished.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the run done."""
        if self.writes:
            files.write_json(self.folder / "finished.json", facts)


def processes() -> int:
    """How many processes a launcher (torchrun, accelerate) started together; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this process is the first of those started together."""
    return processes() == 1 or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def opened(folder: Path, verb: str, config: Any, *, together: bool = False) -> Iterator[Run]:
    """Make or continue the run of `verb` with these settings in `folder`.

    Args:
        folder, verb, config: where, what, and with which settings.
        together: the processes of a launcher make this run together: the first checks, locks and writes, the others
            only read.

    Raises:
        BadRun: the folder holds something else, a run of other settings, or is being written by another process.
    """
    if together and not is_main():
        yield Run(folder, verb, writes=False)
        return
    check(folder, verb, config)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), _logged(folder / "log.txt"):
        files.sweep(folder)
        if not (folder / "config.toml").exists():
            files.write_text(folder / "config.toml", _describe(verb, config))
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


def check(folder: Path, verb: str, config: Any) -> None:
    """Raise `BadRun` where `folder` may not hold this run; nothing is made."""
    if folder.exists() and not folder.is_dir():
        raise BadRun(f"{folder} is a file. Give --out a folder that does not exist yet.")
    if (folder / "config.toml").exists():
        _check_same(folder, verb, settings.as_mapping(config, identity_only=True))
    elif folder.exists() and any(not _own(p) for p in folder.iterdir()):
        raise BadRun(f"{folder} holds files that no run wrote. Give --out an empty or a new folder.")


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
    """Hold the folder for one process; the system lets go of it when the process dies."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadRun(
                f"Another process is writing to {folder}. Wait for it, stop it, or give another --out."
            ) from error
        yield


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


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
