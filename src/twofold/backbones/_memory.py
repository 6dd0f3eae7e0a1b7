"""The C library's memory on a CPU: kept between passes, so that it is not asked from the system again and again.

An activation of tens of megabytes is otherwise mapped, filled with zeros page by page and given back in every layer:
a sixth of the time of ADM-256 on two cores (docs/benchmarks.md). Freed memory stays with the process in return.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

# <malloc.h>: what mallopt takes.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
NEVER = 2**31 - 1
STEP = 1 << 26
# Blocks above this go back all the same: they are few, and the holes they would leave are large.
KEPT = 192 << 20
VALUES = {MMAP_THRESHOLD: KEPT, TRIM_THRESHOLD: NEVER, TOP_PAD: STEP}


@functools.cache
def keep() -> bool:
    """Keep freed memory from now on; False where the C library is not glibc or its user has set it otherwise."""
    glibc = sys.platform == "linux" and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    if not glibc or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, value) for name, value in VALUES.items())
