"""Running an iterator ahead of whoever consumes it, in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END: object = object()


def ahead(source: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items of `source` in order, up to `depth` of them made before they are asked for.

    An error in the source is raised where its item would have come.
    """
    items = iter(source)
    with ThreadPoolExecutor(1) as worker:
        line = deque(worker.submit(next, items, _END) for _ in range(depth))
        while (item := line.popleft().result()) is not _END:
            line.append(worker.submit(next, items, _END))
            yield item  # type: ignore[misc]
