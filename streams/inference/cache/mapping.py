"""Any mapping as a prediction cache, for scripts that have no tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from inferd.streams.inference.cache.partition import Change


class Gettable(Protocol):
    """A dictionary, or a client of a cache that has `get` and `set`."""

    def get(self, key: bytes, /) -> Any: ...


class MappingPartition:
    """Entries in a mapping, which bounds itself if it must be bounded; to be given to `PredictionCache.use`."""

    def __init__(self, mapping: Gettable) -> None:
        """`TypeError` where the mapping can neither be assigned to nor has `set`."""
        put = getattr(mapping, "set", None) or getattr(mapping, "__setitem__", None)
        if put is None:
            raise TypeError(
                f"a cache must be a mutable mapping or have get and set; {type(mapping).__name__} is neither"
            )
        self._get = mapping.get
        self._put = cast(Callable[[bytes, bytes], object], put)

    def lookup(self, prefix: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `CachePartition.lookup`; what is not bytes is none of ours."""
        return [value if isinstance(value := self._get(key), bytes) else None for key in keys]

    def fill(self, prefix: bytes, entries_max: int, values: dict[bytes, bytes]) -> list[Change]:
        """As `CachePartition.fill`; there are no changes for a table."""
        for key, value in values.items():
            self._put(key, value)
        return []
