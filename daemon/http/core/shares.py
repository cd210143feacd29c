"""Shares slots fairly between tenants: no tenant can take all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.schemas.errors import QuotaExceededError


class Shares:
    """Half of the slots are reserved in equal shares, at least one per tenant; the rest is free for any tenant."""

    def __init__(self, slots: int, tenants: int = 1) -> None:
        self._reserved = max(1, slots // (2 * tenants))
        self._common = max(slots, tenants) - self._reserved * tenants
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Slots in use by all tenants."""
        return self._taken.total()

    @contextmanager
    def slot(self, tenant: str, message: str) -> Iterator[None]:
        """Holds a slot for the tenant. Raises `QuotaExceededError` with the text `message` if none is free."""
        if not self._has_free(tenant):
            raise QuotaExceededError(message)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1

    def _has_free(self, tenant: str) -> bool:
        if self._taken[tenant] < self._reserved:
            return True
        return sum(max(0, taken - self._reserved) for taken in self._taken.values()) < self._common
