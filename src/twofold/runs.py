"""A run is a folder that one command wrote. It explains itself and is never overwritten by another.

config.toml      verb, resolved settings, hashes of what it is made from, versions, the command; written first
results.jsonl    scores, append-only (see results.py)
results.sha256   their hash when the run was done, as `sha256sum --check` reads it
log.txt          what was said while it ran
finished.json    what the command gave back; its presence means done
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import _telling, files, settings
from twofold.errors import BadRun
from twofold.records import Outcome, check

SEAL = "results.sha256"
UNFINISH = "Delete it and run the same command again."


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
        if not path.exists():
            return None
        facts: dict[str, Any] = files.read_json(path, advice=UNFINISH)
        with files.undamaged(path, UNFINISH):
            if not facts:
                raise ValueError("it says nothing")
        return facts

    def again(self, told: Callable[[dict[str, Any]], str]) -> Outcome | None:
        """The outcome of a run that is done already, None while it is not; `told` puts what it gave back in words."""
        facts = self.finished
        if facts is None:
            return None
        with files.undamaged(self.folder / "finished.json", UNFINISH):
            return Outcome(facts, f"{self.folder} is done already: {told(facts)}")

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the run done."""
        if self.writes:
            seal(self.folder)
            files.write_json(self.folder / "finished.json", facts)


def seal(folder: Path) -> None:
    """Note the hash of a run's scores, where it has any, so that a later change is seen."""
    scores = folder / "results.jsonl"
    if scores.exists():
        files.write_text(folder / SEAL, f"{_hash(scores)}  {scores.name}\n")


def sealed(folder: Path) -> bool | None:
    """Whether a run's scores are those that it finished with; None where it noted no hash."""
    seal_ = folder / SEAL
    if not seal_.exists():
        return None
    scores = folder / "results.jsonl"
    return scores.exists() and seal_.read_text(encoding="utf-8", errors="replace").split() == [
        _hash(scores),
        scores.name,
    ]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def processes() -> int:
    """How many processes a launcher (torchrun, accelerate) started together; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def own_gpu() -> str | None:
    """The GPU of one of several processes that a launcher started on a machine with several GPUs."""
    if processes() == 1:
        return None
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(os.environ.get('LOCAL_RANK') or 0) % count}" if count > 1 else None


def is_main() -> bool:
    """Whether this process is the first of those started together."""
    return processes() == 1 or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def opened(
    folder: Path, verb: str, config: Any, inputs: Mapping[str, str] | None = None, *, together: bool = False
) -> Iterator[Run]:
    """Make or continue the run of `verb` with these settings in `folder`.

    Args:
        folder, verb, config: whose run it is.
        inputs: what it is made from, by name: a hash or another short word that changes where the content behind
            a setting does (a setting holds the path of a model, not its weights).
        together: the processes of a launcher make this run together: the first checks, locks and writes, the others
            only read.

    Raises:
        BadRun: the folder holds something else, a run of other settings or inputs, or another process writes to it.
    """
    if together and not is_main():
        yield Run(folder, verb, writes=False)
        return
    described = _describe(verb, config, inputs or {})
    _claim(folder, described, config)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        # Before the lock this was looked at for a quick answer; only what is seen under it holds.
        _claim(folder, described, config)
        files.sweep(folder)
        if not (folder / "config.toml").exists():
            import tomli_w

            files.write_text(folder / "config.toml", tomli_w.dumps(described))
        with _telling.to_file(folder / "log.txt"):
            yield Run(folder, verb)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's config.toml: `verb`, `settings`, `identity`, `inputs`, `made`."""
    path = folder / "config.toml"
    if not path.exists():
        raise BadRun(f"{folder} is not a run: it has no config.toml. Give the --out folder of an earlier command.")
    with files.undamaged(path):
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        check(found, {"verb": str}, dict.fromkeys(("settings", "identity", "inputs", "made"), dict))
        return found


def progress(total: int, title: str, *, done: int = 0, unit: str = "images") -> Any:
    """A progress bar on stderr with rate and time left; silent where nobody reads it (`--quiet`, no terminal)."""
    from twofold._progress import Bar

    return Bar(total, title, done=done, unit=unit)


def check_free(folder: Path, verb: str, config: Any) -> None:
    """Raise `BadRun` where `folder` may not hold this run, whatever it is made from; nothing is made."""
    described = _describe(verb, config, {})
    _claim(folder, {name: value for name, value in described.items() if name != "inputs"}, config)


def _claim(folder: Path, wanted: dict[str, Any], config: Any) -> None:
    """Check that `folder` may hold this run."""
    if folder.exists() and not folder.is_dir():
        raise BadRun(f"{folder} is a file. Give --out a folder that does not exist yet.")
    if (folder / "config.toml").exists():
        _check_same(folder, wanted, config)
    elif folder.exists() and any(not _own(p) for p in folder.iterdir()):
        raise BadRun(f"{folder} holds files that no run wrote. Give --out an empty or a new folder.")


def _own(path: Path) -> bool:
    """Whether a run killed at its very start may have left this."""
    return path.name in (".lock", "log.txt") or path.name.startswith(files.UNFINISHED)


def _check_same(folder: Path, wanted: dict[str, Any], config: Any) -> None:
    found = read_config(folder)
    # A setting that was not there yet when the run was made had the effect that its default has now.
    found["identity"] = {**settings.defaults(config), **found.get("identity", {})}
    advice = "Give another --out, or the same settings to continue it."
    if found["verb"] != wanted["verb"]:
        raise BadRun(f"{folder} holds a run of `{found['verb']}`, not of `{wanted['verb']}`. {advice}")
    if told := _changed(found, wanted, "identity"):
        raise BadRun(f"{folder} holds a run of other settings: {told}. {advice}")
    if told := _changed(found, wanted, "inputs"):
        raise BadRun(
            f"What {folder} was made from is not the same now: {told}. Give another --out, or bring back what it was."
        )


def _changed(found: dict[str, Any], wanted: dict[str, Any], part: str) -> str:
    """The names of one part of config.toml that differ, with both values."""
    there = found.get(part, {})
    here = wanted.get(part, there)
    names = [n for n in sorted({*there, *here}) if _listed(there.get(n)) != _listed(here.get(n))]
    return "; ".join(f"{n} is {there.get(n, 'unset')} there, {here.get(n, 'unset')} here" for n in names)


def _listed(value: Any) -> list[Any]:
    """A setting that has come to take several values was made with one."""
    return value if isinstance(value, list) else [value]


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


def _describe(verb: str, config: Any, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The content of config.toml."""
    return {
        "verb": verb,
        "settings": settings.as_mapping(config),
        "identity": settings.as_mapping(config, identity_only=True),
        "inputs": dict(inputs),
        "made": {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "python": platform.python_version(),
            "machine": platform.machine(),
            **versions(),
        },
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on."""
    wanted = ("twofold", "torch", "diffusers", "accelerate", "numpy", "scikit-learn", "zarr")
    return {name: importlib.metadata.version(name) for name in wanted}
