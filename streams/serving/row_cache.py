"""A prediction cache on top of any mapping or client that the user passes. Faults of the cache are cache misses."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, runtime_checkable

import msgspec
import structlog

from inferd.schemas.errors import ServerError
from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output

KEY_BYTES = 20
log = structlog.get_logger(__name__)


@runtime_checkable
class GetSet(Protocol):
    """A cache that is not a mapping, such as a client of Redis or memcached."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: str) -> Any: ...


Cache = MutableMapping[str, str] | GetSet
"""Keys are strings of about 60 characters, values are JSON strings; `get` may return them as bytes."""


class RowCache:
    """One tenant's predictions, one entry per row, in a mapping or an object with `get` and `set`.

    An exception of the cache, or an entry that cannot be decoded, is a miss.
    """

    def __init__(self, cache: Cache, tenant_id: str) -> None:
        self._get, self._set, self._takes_ttl = _access(cache)
        self._tenant_id = tenant_id
        self._complained = False

    def keys(self, manifest: Manifest, outputs: tuple[Output, ...], rows: list[bytes]) -> list[str]:
        """The key of each row (float64 bytes): a hash of tenant, model digest, postprocessing, outputs and row.

        Versions with the same model file and postprocessing share entries.
        """
        # Labels and thresholds are in the manifest: the same model file can give other predictions in another version.
        what = msgspec.msgpack.encode([self._tenant_id, manifest.sha256, manifest.postprocess, outputs])
        prefix = hashlib.blake2b(what, digest_size=KEY_BYTES)
        keys = []
        for row in rows:
            digest = prefix.copy()
            digest.update(row)
            keys.append(f"inferd:{self._tenant_id}:{digest.hexdigest()}")
        return keys

    def get(self, key: str, size: int) -> list[Any] | None:
        """The `size` values of one row; None on a miss."""
        try:
            found = self._get(key)
            values = None if found is None else msgspec.json.decode(found, type=list[Any])
        except Exception as error:  # noqa: BLE001  # any fault of a user's cache is a miss
            self._warn("get", error)
            return None
        return values if values is not None and len(values) == size else None

    def set(self, key: str, values: list[Any], ttl_s: float | None) -> None:
        """Store the values of one row; `ttl_s` is passed on if the cache's `set` has a parameter `ttl` (seconds)."""
        text = msgspec.json.encode(values).decode()
        try:
            if ttl_s is not None and self._takes_ttl:
                self._set(key, text, ttl=ttl_s)
            else:
                self._set(key, text)
        except Exception as error:  # noqa: BLE001  # as above
            self._warn("set", error)

    def _warn(self, what: str, error: Exception) -> None:
        if not self._complained:
            log.warning("cache_failed", call=what, reason=f"{type(error).__name__}: {error}", again="logged once only")
        self._complained = True


def _access(cache: Any) -> tuple[Callable[[str], Any], Callable[..., Any], bool]:
    """The functions to get and set, and whether setting accepts a time to live."""
    if callable(getattr(cache, "get", None)):
        if callable(put := getattr(cache, "set", None)):
            return cache.get, put, _takes_ttl(put)
        if hasattr(cache, "__setitem__"):
            return cache.get, cache.__setitem__, False
    raise ServerError(
        f"cache of {type(cache).__name__}: expected a mutable mapping, or an object with get(key) and set(key, value)"
    )


def _takes_ttl(put: Callable[..., Any]) -> bool:
    try:
        return "ttl" in inspect.signature(put).parameters
    except (TypeError, ValueError):
        return False
