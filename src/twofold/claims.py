"""Who does what, among the processes that fill one store: byte ranges of one file, locked one by one.

A name becomes an offset in the file by its hash, so that processes need not agree on anything beforehand, and no
byte is ever written. The system lets go of a lock when its owner dies, also on shared disks that know locks; on
disks that know none everybody gets every claim, which costs work done twice and nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

TAKEN = (errno.EACCES, errno.EAGAIN)
INSIDE = 0  # the byte that all who are at work share
SPAN = 2**62


class Claims:
    """The claims of this process; they end with it, or with the `with` that holds them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self.closed = False
        _lock(self._file.fileno(), fcntl.LOCK_SH, INSIDE)

    def take(self, name: str) -> bool:
        """Claim a name; False where another process has it."""
        offset = 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % SPAN
        return not self.closed and _lock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, offset)

    def alone(self) -> bool:
        """Whether nobody else is at work; from then on nobody can begin."""
        return _lock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, INSIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        self._file.close()


def _lock(handle: int, how: int, offset: int) -> bool:
    try:
        fcntl.lockf(handle, how, 1, offset)
    except OSError as error:
        return error.errno not in TAKEN
    return True
