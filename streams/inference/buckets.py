"""Requests of a micro-batch that name the same model and outputs, and the versions that score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.kernels import ReadRows
from inferd.streams.inference.micro_batch import Group, MicroBatch
from inferd.streams.inference.spans import AsciiTexts, Spans

T = TypeVar("T")


@dataclass(slots=True)
class Bucket:
    """Requests to one model with the same outputs. Only their envelopes have been decoded."""

    indexes: list[int] = field(default_factory=list)
    ids: Sequence[str] = field(default_factory=list)
    rows: Sequence[bytes] = ()
    read: ReadRows | None = None
    """The rows, if a kernel has read them with their envelopes."""

    def add(self, index: int, request_id: str, row: bytes) -> None:
        """Adds a request."""
        self.indexes.append(index)
        self.ids, self.rows = as_list(self.ids), as_list(self.rows)
        self.ids.append(request_id)
        self.rows.append(row)
        self.read = None

    def add_several(
        self, indexes: Sequence[int], ids: Sequence[str], rows: Spans, read: ReadRows | None = None
    ) -> None:
        """Adds requests."""
        if not self.indexes:
            self.indexes, self.ids, self.rows, self.read = [*indexes], ids, rows, read
            return
        self.read = None
        self.indexes += indexes
        self.ids, self.rows = [*self.ids, *ids], [*self.rows, *rows]

    def split(self, chosen: Sequence[bool]) -> tuple[Bucket, Bucket]:
        """The chosen requests, and the others."""
        return self.take(np.flatnonzero(chosen)), self.take(np.flatnonzero(np.logical_not(chosen)))

    def indexes_at(self, places: NDArray[np.intp]) -> Sequence[int]:
        """The record indexes of the requests at `places`."""
        return _at(places.tolist(), self.indexes)

    def take(self, places: NDArray[np.intp]) -> Bucket:
        """The requests at `places`."""
        listed = places.tolist()
        read = self.read.take(places) if self.read is not None else None
        return Bucket([*_at(listed, self.indexes)], _ids_at(listed, self.ids), strings_at(listed, self.rows), read)


@dataclass(frozen=True, slots=True)
class Leg:
    """A version that scores the requests of a bucket at `places`, which ascend."""

    model: ServedModel
    places: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.places)

    def among(self, kept: NDArray[np.bool_]) -> Leg:
        """The same in a bucket of the requests that are `kept`, bool (requests,)."""
        return Leg(self.model, (np.cumsum(kept) - 1)[self.places[kept[self.places]]])

    def add_to(self, group: Group, bucket: Bucket, inputs: Inputs) -> None:
        """Adds its requests and their rows to its group; `inputs` are the rows of the whole bucket."""
        if len(self) == len(inputs):
            group.add_singles(bucket.indexes, bucket.ids, inputs)
        elif len(self):
            listed = self.places.tolist()
            group.add_singles(_at(listed, bucket.indexes), _ids_at(listed, bucket.ids), inputs[self.places])


def _at(places: Sequence[int], column: Sequence[T]) -> Sequence[T]:
    """The items at `places`."""
    return itemgetter(*places)(column) if len(places) > 1 else [column[place] for place in places]


def _ids_at(places: Sequence[int], ids: Sequence[str]) -> Sequence[str]:
    return ids.take(places) if isinstance(ids, AsciiTexts) else _at(places, ids)


def as_list(items: Sequence[T]) -> list[T]:
    """The items themselves if they are a list."""
    return items if isinstance(items, list) else list(items)


def strings_at(places: Sequence[int], strings: Sequence[bytes]) -> Sequence[bytes]:
    """The strings at `places`, which ascend."""
    if len(places) == len(strings):
        return strings
    return strings.take(places) if isinstance(strings, Spans) else _at(places, strings)


def routing_keys(batch: MicroBatch, bucket: Bucket) -> Sequence[bytes] | Sequence[str]:
    """What chooses the version of a split: the key of the record, else the id of the request."""
    keys = _at(bucket.indexes, batch.keys)
    if all(keys):
        return cast(Sequence[bytes], keys)
    if not any(keys):
        return bucket.ids
    return [key or request_id.encode() for key, request_id in zip(keys, bucket.ids, strict=True)]
