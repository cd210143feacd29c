"""Slots shared fairly between tenants: no tenant can take all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.schemas.errors import QuotaExceededError


class Shares:
    """Half of the slots belong to the tenants in equal shares, at least one each; any tenant may take of the rest."""

    def __init__(self, slots: int, tenants: int = 1) -> None:
        self._own = max(1, slots // (2 * tenants))
        self._common = max(slots, tenants) - self._own * tenants
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Slots in use by all tenants."""
        return self._taken.total()

    @contextmanager
    def one(self, tenant: str, refusal: str) -> Iterator[None]:
        """Takes a slot for the tenant. Raises `QuotaExceededError` with the text `refusal` if there is none."""
        if not self._is_free(tenant):
            raise QuotaExceededError(refusal)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1

    def _is_free(self, tenant: str) -> bool:
        if self._taken[tenant] < self._own:
            return True
        return sum(max(0, taken - self._own) for taken in self._taken.values()) < self._common
