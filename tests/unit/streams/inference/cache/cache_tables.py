"""A table partition without Kafka: the committed entries, and the changes in flight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inferd.streams.inference.cache.partition import Change


class FakeTable:
    """Commits and rewinds when a test calls for it."""

    def __init__(self) -> None:
        self.committed: dict[bytes, bytes] = {}
        self.in_flight: list[list[Change]] = []
        self.reads = 0

    def visible(self) -> dict[bytes, bytes]:
        """The entries with the changes in flight."""
        entries: dict[bytes, bytes | None] = dict(self.committed)
        for changes in self.in_flight:
            entries.update(changes)
        return {key: value for key, value in entries.items() if value is not None}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.reads += len(keys)
        entries = self.visible()
        return [entries.get(key) for key in keys]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.committed.items())

    def stage(self, changes: Sequence[Change]) -> None:
        self.in_flight.append(list(changes))

    def commit(self) -> list[Change]:
        """Makes the oldest changes in flight permanent, and returns them."""
        changes = self.in_flight.pop(0) if self.in_flight else []
        for key, value in changes:
            self.committed.pop(key, None)
            if value is not None:
                self.committed[key] = value
        return changes

    def rewind(self) -> list[Change]:
        """Discards all changes in flight, and returns them."""
        lost = [change for changes in self.in_flight for change in changes]
        self.in_flight.clear()
        return lost
