"""Writing files so that a reader never sees half of one, whatever kills the writer."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twofold.errors import BadRun
from twofold.records import Kinds, check

UNFINISHED = ".unfinished-"
AGAIN = "Make the run again in another folder."


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes `path`'s place at once, on failure it is removed.

    The temporary file has the same suffix, since libraries choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file for one process (or one thread of it); the system lets go of it when the process dies.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is false.
    """
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give the path of a folder to build something in, which does not exist yet; what is left of it is removed.

    What safetensors says of the disk becomes the system's own error, as any other file raises it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if type(error).__name__ != "SafetensorError" or not found:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else writes to."""
    for left in folder.glob(f"{UNFINISHED}*"):
        left.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, at once."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Iterable[str]]) -> None:
    """Write rows of text with commas between, quoted where a value needs it, at once."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def append_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Append one JSON object a line in a single write, after mending a line that a killed writer left half done."""
    drop_torn_line(path)
    text = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, needs: Kinds | None = None, may: Kinds | None = None) -> list[dict[str, Any]]:
    """Read JSON lines; a last line without an end of line was never finished and does not count.

    Raises:
        BadRun: a line is no JSON object, or does not hold what it must.
    """
    if not path.exists():
        return []
    with undamaged(path):
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    found = []
    for number, line in enumerate(whole.split("\n"), 1):
        if line.strip():
            with undamaged(path, f"Delete line {number} of it, or make the run again in another folder."):
                found.append(json.loads(line))
                check(found[-1], needs or {}, may)
    return found


def read_json(path: Path, needs: Kinds | None = None, may: Kinds | None = None, *, advice: str = AGAIN) -> Any:
    """Read one JSON object, a dict.

    Raises:
        BadRun: it is none, or does not hold what it must.
    """
    with undamaged(path, advice):
        found = json.loads(path.read_text(encoding="utf-8"))
        check(found, needs or {}, may)
        return found


@contextmanager
def undamaged(path: Path, advice: str = AGAIN) -> Iterator[None]:
    """Say which file is damaged when what is inside cannot be understood."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadRun(f"{path} is damaged: {str(error) or type(error).__name__}. {advice}") from error


def drop_torn_line(path: Path) -> None:
    """Cut a half-written last line off, so that the next one starts on its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)


def slug(name: str) -> str:
    """A name as that of a folder; one that has to be changed for it carries a hash, so that no two fall together."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name):
        return name
    last = re.sub(r"[^A-Za-z0-9.-]+", "_", re.split(r"[:/]", name.rstrip("/"))[-1])[-40:].strip("_.-")
    return f"{last or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _umask() -> int:
    """The process's file mode mask, which `mkstemp` ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
