"""Schemas by id, and ids by schema: known ones are given at once, others are asked for in the background."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeAlias, TypeVar

import structlog

from inferd.schemas.errors import InferenceError, SchemaNotFoundError
from inferd.streams.routes.formats import Pending, RegisteredSchema
from inferd.streams.routes.schema_registry.client import SchemaRegistryClient
from inferd.streams.routes.schema_registry.errors import (
    RegistryUnavailableError,
    SchemaRegistryError,
)
from inferd.streams.tasks import BackgroundTasks, OnCrash

RETRY_S_MIN, RETRY_S_MAX = 0.1, 10.0
NOT_FOUND_TRIES = 3
"""A replica of a registry may not have yet what a producer has just registered."""
NOT_FOUND_S = 60.0
"""How long a schema that the registry does not have is not asked for again."""
KNOWN_MAX = 10_000

log = structlog.get_logger(__name__)
V = TypeVar("V")
Known: TypeAlias = V | InferenceError


class SchemaCache:
    """The `Schemas` of one registry. Not thread-safe: for the event loop on which it was started."""

    def __init__(
        self,
        client: SchemaRegistryClient,
        on_crash: OnCrash,
        on_change: Callable[[], None] = lambda: None,
        retry_s: tuple[float, float] = (RETRY_S_MIN, RETRY_S_MAX),
    ) -> None:
        """`on_change` is called when something that was asked for is known. `retry_s`: first and longest pause."""
        self._client = client
        self._tasks = BackgroundTasks(on_crash)
        self._on_change = on_change
        self._retry_s = retry_s
        self._schemas = _Answers[RegisteredSchema](self)
        self._ids = _Answers[int](self)
        self._waits: dict[Hashable, str] = {}

    def get(self, schema_id: int) -> RegisteredSchema | InferenceError | Pending:
        """The schema with this id; an error if the registry does not have it."""
        return self._schemas.get(schema_id, f"schema {schema_id}", lambda: self._client.schema(schema_id))

    def register(self, subject: str, schema: RegisteredSchema) -> int | InferenceError | Pending:
        """The id of a schema under a subject, which is registered if it is not there."""
        key = (subject, schema.kind, schema.text, schema.references)
        return self._ids.get(key, f"subject {subject}", lambda: self._client.register(subject, schema))

    def waits(self) -> tuple[str, ...]:
        """What is being waited for, and why; one line each."""
        return tuple(sorted({*self._waits.values()}))

    async def close(self) -> None:
        """Ends all questions and the connections."""
        await self._tasks.close()
        await self._client.close()

    def ask(
        self, key: Hashable, what: str, question: Callable[[], Coroutine[Any, Any, V]], keep: Callable[[Known[V]], None]
    ) -> None:
        """Asks until there is an answer, and passes it to `keep`."""
        self._waits[key] = f"{what}: asked for"
        _ = self._tasks.start(self._until_answered(key, what, question, keep))

    async def _until_answered(
        self, key: Hashable, what: str, question: Callable[[], Coroutine[Any, Any, V]], keep: Callable[[Known[V]], None]
    ) -> None:
        pause_s, tries = self._retry_s[0], 0
        while True:
            try:
                keep(await question())
                break
            except SchemaNotFoundError as error:
                tries += 1
                if tries >= NOT_FOUND_TRIES:
                    keep(error)
                    break
            except SchemaRegistryError as error:
                self._note(key, what, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._retry_s[1])
        if self._waits.pop(key).startswith(f"{what}: waits"):
            log.info("schema_registry_wait_over", what=what)
        self._on_change()

    def _note(self, key: Hashable, what: str, error: SchemaRegistryError) -> None:
        reason = f"{what}: waits, {error.message}"
        if self._waits[key] != reason:
            self._waits[key] = reason
            level = "warning" if isinstance(error, RegistryUnavailableError) else "error"
            getattr(log, level)("schema_registry_waits", what=what, reason=error.message)

    def reason(self, key: Hashable) -> str:
        """Why something is not known yet."""
        return self._waits[key]


class _Answers(Generic[V]):
    """What is known of one kind of question, least recently used first."""

    def __init__(self, cache: SchemaCache) -> None:
        self._cache = cache
        self._known: OrderedDict[Hashable, Known[V]] = OrderedDict()
        self._asked: set[Hashable] = set()

    def get(self, key: Hashable, what: str, question: Callable[[], Coroutine[Any, Any, V]]) -> Known[V] | Pending:
        """What is known; else asks, unless it is being asked for."""
        known = self._known.get(key)
        if known is not None:
            return known
        if key not in self._asked:
            self._asked.add(key)
            self._cache.ask((id(self), key), what, question, lambda answer: self._keep(key, answer))
        return Pending(self._cache.reason((id(self), key)))

    def _keep(self, key: Hashable, answer: Known[V]) -> None:
        self._asked.discard(key)
        self._known[key] = answer
        if isinstance(answer, InferenceError):
            asyncio.get_running_loop().call_later(NOT_FOUND_S, self._forget, key, answer)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _forget(self, key: Hashable, answer: InferenceError) -> None:
        if self._known.get(key) is answer:
            del self._known[key]
