"""Where a store lies: a local folder, or any address that fsspec opens (s3://bucket/features, memory://mine).

A place is a tree of named files; names are relative and have / between their parts. What can be locked is a local
folder alone. Elsewhere making the same thing twice must do no harm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, final

from twofold import files
from twofold.errors import BadSetting, BadStore, TwofoldError

LOCK = ".lock"
CLAIMS = ".claims"
PARTIAL = ".partial"


class Place(ABC):
    """A tree of named files that zarr can open.

    Attributes:
        folder: on this machine's disk, or None.
        claims: the local file in which processes of this machine agree on who does what.
    """

    folder: Path | None
    claims: Path

    @property
    @abstractmethod
    def opened(self) -> Any:
        """What zarr takes as a store."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def names(self, below: str = "") -> list[str]:
        """The full names of all files below a folder, sorted; none where there is no such folder."""

    @abstractmethod
    def folders(self, below: str = "") -> list[str]:
        """The last parts of the names of the folders in a folder, sorted."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is below it."""

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Hold the place for one process, where that can be done."""

    @abstractmethod
    def reached(self) -> AbstractContextManager[None]:
        """Put into one line what goes wrong on the way to the place."""


@final
class Folder(Place):
    """A folder on a disk, whoever else can see it."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        self.claims = folder / CLAIMS

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def opened(self) -> str:
        """Its path."""
        return str(self.folder)

    def exists(self, name: str) -> bool:
        """See `Place.exists`."""
        return (self.folder / name).exists()

    def names(self, below: str = "") -> list[str]:
        """See `Place.names`."""
        found = []
        for where, _, names in os.walk(self.folder / below):
            start = Path(where).relative_to(self.folder).as_posix()
            found += [name if start == "." else f"{start}/{name}" for name in names]
        return sorted(found)

    def folders(self, below: str = "") -> list[str]:
        """See `Place.folders`."""
        where = self.folder / below
        return sorted(entry.name for entry in os.scandir(where) if entry.is_dir()) if where.is_dir() else []

    def size(self, name: str) -> int:
        """See `Place.size`."""
        return (self.folder / name).stat().st_size

    def remove(self, name: str) -> None:
        """See `Place.remove`."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock file, which the system lets go of when the process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.locked(self.folder / LOCK):
            yield

    def reached(self) -> AbstractContextManager[None]:
        """The system's own errors say what is wrong with a disk."""
        return nullcontext()


@final
class Address(Place):
    """Anything that fsspec opens; its files must appear whole or not at all, as objects of S3 do."""

    folder = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        told = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.claims = Path(tempfile.gettempdir()) / f"twofold-{os.getuid()}-{told}{CLAIMS}"

    def __str__(self) -> str:
        return self.url

    @cached_property
    def opened(self) -> Any:
        """Zarr's store over the same file system; what is listed is never remembered, since others write too."""
        with self.reached():
            from zarr.storage import FsspecStore

            return FsspecStore.from_url(self.url, storage_options={"use_listings_cache": False})

    @cached_property
    def _system(self) -> Any:
        """The file system and the path of the place in it."""
        from fsspec.core import url_to_fs

        return url_to_fs(self.url, use_listings_cache=False)

    def exists(self, name: str) -> bool:
        """See `Place.exists`."""
        with self.reached():
            system, root = self._system
            try:
                return bool(system.info(f"{root}/{name}")["type"] == "file")
            except FileNotFoundError:
                return False

    def names(self, below: str = "") -> list[str]:
        """See `Place.names`."""
        with self.reached():
            system, root = self._system
            return sorted(self._relative(path) for path in system.find(f"{root}/{below}".rstrip("/")))

    def folders(self, below: str = "") -> list[str]:
        """See `Place.folders`."""
        with self.reached():
            system, root = self._system
            try:
                found = system.ls(f"{root}/{below}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
            return sorted(Path(entry["name"]).name for entry in found if entry["type"] == "directory")

    def size(self, name: str) -> int:
        """See `Place.size`."""
        with self.reached():
            system, root = self._system
            return int(system.size(f"{root}/{name}"))

    def remove(self, name: str) -> None:
        """See `Place.remove`."""
        with self.reached():
            system, root = self._system
            system.rm(f"{root}/{name}", recursive=True)

    def locked(self) -> AbstractContextManager[None]:
        """Nothing can be held here."""
        return nullcontext()

    @contextmanager
    def reached(self) -> Iterator[None]:
        """What fsspec and its clients raise is of many kinds; all of them mean that the address did not work."""
        try:
            yield
        except TwofoldError:
            raise
        except ImportError as error:
            raise BadSetting(f"{self.url} needs a package: {error}. Run `pip install twofold[remote]`.") from error
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).rstrip(".")
            raise BadStore(
                f"{self.url} cannot be used ({reason}). Check the address, the network and your credentials."
            ) from error

    def _relative(self, path: str) -> str:
        return path.strip("/").removeprefix(self._system[1].strip("/")).lstrip("/")


def parse(where: str | Path) -> Place:
    """The place that a path or an address with :// names."""
    text = str(where)
    if not text:
        raise BadSetting("'' names no store. Give a folder, or an address such as s3://bucket/features.")
    scheme, mark, rest = text.partition("://")
    if not mark:
        return Folder(Path(where))
    if scheme in ("file", "local"):
        return Folder(Path(rest))
    if not rest.strip("/"):
        raise BadSetting(f"{text} names no folder. Give more of the address, such as {scheme}://bucket/features.")
    return Address(text)


def within(where: str | Path, name: str) -> str:
    """The folder or address of something inside another."""
    return f"{str(where).rstrip('/')}/{name}"
