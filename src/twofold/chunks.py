"""Chunks of rows as files on a local disk: what zarr's codecs `bytes` and `crc32c` write, without its machinery.

Zarr reads these files and we read zarr's. For a chunk of a megabyte its event loop, threads and copies take
longer than the disk's cache does (docs/stores.md), so stores in a local folder go this way.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 14  # numbers converted at a time
CHECKSUM = 4  # bytes of CRC-32C behind the numbers, little-endian

Raw = NDArray[np.uint8]


def plain(array: Any) -> bool:
    """Whether a zarr array's chunks are rows of raw little-endian numbers with their checksum."""
    codecs = [codec.to_dict() for codec in array.metadata.codecs]
    wanted = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return codecs == wanted and array.chunks[1:] == array.shape[1:]


def checked(array: Any) -> bool:
    """Whether a flipped bit in a chunk of a zarr array is found."""
    return any(codec.to_dict()["name"] == "crc32c" for codec in array.metadata.codecs)


def buffer(array: Any) -> Raw:
    """Room for the numbers of one chunk of an array."""
    return np.empty(int(np.prod(array.chunks)) * array.dtype.itemsize, np.uint8)


def read(path: Path, into: Raw) -> None:
    """Fill a `buffer` with the numbers of a file.

    Raises:
        ValueError: the file is of another size, or its checksum is not that of its numbers.
    """
    with path.open("rb") as file:
        there, wanted = os.fstat(file.fileno()).st_size, len(into) + CHECKSUM
        if there != wanted:
            raise ValueError(f"{path.parent.name}/{path.name} is {there} bytes long, not {wanted}")
        file.readinto(into.data)
        told = file.read(CHECKSUM)
    if _checksum(into) != told:
        raise ValueError(f"the checksum of {path.parent.name}/{path.name} is wrong")


def write(path: Path, values: NDArray[Any]) -> None:
    """Write a whole chunk at once: no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.partial")  # as zarr calls its own
    try:
        with temporary.open("wb") as file:
            file.write(data.data)
            file.write(_checksum(data))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def converted(values: NDArray[Any], into: NDArray[Any]) -> NDArray[Any]:
    """Fill an array of another number format, and give it; what is too large for float16 becomes infinite.

    To and from float16 torch takes the processor's own instruction, numpy goes number by number: a twentieth of the
    speed, and the same bits. In pieces so small that torch asks no other thread: those are at work on the network.
    """
    import torch

    source = torch.from_numpy(np.require(values, requirements=("C", "W")).reshape(-1))
    target = torch.from_numpy(into.reshape(-1))
    for start in range(0, len(target), PIECE):
        target[start : start + PIECE] = source[start : start + PIECE]
    return into


def _checksum(data: Raw) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(CHECKSUM, "little")
