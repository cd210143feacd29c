"""Requests of a micro-batch that name the same model and outputs, and the versions that score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.kernels import ReadRows
from inferd.streams.inference.micro_batch import Group, MicroBatch
from inferd.streams.inference.record_block import RecordBlock
from inferd.streams.inference.spans import AsciiTexts, Indexes, Spans


def _no_indexes() -> Indexes:
    return np.zeros(0, np.intp)


@dataclass(slots=True)
class Bucket:
    """Requests to one model with the same outputs. Only their envelopes have been decoded."""

    indexes: Indexes = field(default_factory=_no_indexes)
    """intp (requests,): their records."""
    ids: Sequence[str] = ()
    rows: Sequence[bytes] = ()
    read: ReadRows | None = None
    """The rows, if a kernel has read them with their envelopes."""

    def add(self, indexes: Indexes, ids: Sequence[str], rows: Sequence[bytes], read: ReadRows | None = None) -> None:
        """Adds requests."""
        if not len(self.indexes):
            self.indexes, self.ids, self.rows, self.read = indexes, ids, rows, read
            return
        self.indexes, self.read = np.concatenate([self.indexes, indexes]), None
        self.ids, self.rows = [*self.ids, *ids], [*self.rows, *rows]

    def split(self, chosen: Sequence[bool]) -> tuple[Bucket, Bucket]:
        """The chosen requests, and the others."""
        return self.take(np.flatnonzero(chosen)), self.take(np.flatnonzero(np.logical_not(chosen)))

    def take(self, places: NDArray[np.intp]) -> Bucket:
        """The requests at `places`."""
        read = self.read.take(places) if self.read is not None else None
        return Bucket(self.indexes[places], ids_at(places, self.ids), strings_at(places, self.rows), read)


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
            places = self.places
            group.add_singles(bucket.indexes[places], ids_at(places, bucket.ids), inputs[places])


def ids_at(places: NDArray[np.intp], ids: Sequence[str]) -> Sequence[str]:
    """The ids at `places`."""
    return ids.take(places) if isinstance(ids, AsciiTexts) else [ids[place] for place in places.tolist()]


def strings_at(places: NDArray[np.intp], strings: Sequence[bytes]) -> Sequence[bytes]:
    """The strings at `places`, which ascend."""
    if len(places) == len(strings):
        return strings
    return strings.take(places) if isinstance(strings, Spans) else [strings[place] for place in places.tolist()]


def routing_keys(batch: MicroBatch, bucket: Bucket) -> Sequence[bytes] | Sequence[str]:
    """What chooses the version of a split: the key of the record, else the id of the request."""
    if isinstance(batch.records, RecordBlock):
        spans = batch.records.key_spans().take(bucket.indexes)
        if (spans.ends > spans.starts).all():
            return spans
    keys = [batch.keys[index] for index in bucket.indexes.tolist()]
    if all(keys):
        return cast(Sequence[bytes], keys)
    if not any(keys):
        return bucket.ids
    return [key or request_id.encode() for key, request_id in zip(keys, bucket.ids, strict=True)]
