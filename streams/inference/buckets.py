"""Requests of a micro-batch that name the same model and outputs, and the versions that score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import Codec
from inferd.schemas.limits import Limits
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.features import ENCODINGS, FeatureSchema
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.kernels import ReadRows, library, split_rows
from inferd.streams.inference.micro_batch import Group, MicroBatch
from inferd.streams.inference.record_block import RecordBlock
from inferd.streams.inference.spans import AsciiTexts, Indexes, Spans


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Requests to one model with the same outputs. Only their envelopes have been decoded."""

    codec: Codec
    model_id: str
    outputs: tuple[str, ...]
    indexes: Indexes
    """intp (requests,): their records."""
    ids: Sequence[str]
    data: Sequence[bytes]
    """The `input_data` of each."""
    counts: NDArray[np.int64] | None = None
    """int64 (requests,): how many rows each lists, at least one; None if each is a row itself."""
    read: ReadRows | None = None
    """The rows, if a kernel has read them with their envelopes."""

    def split(self, chosen: Sequence[bool]) -> tuple[Bucket, Bucket]:
        """The chosen requests, and the others."""
        return self.take(np.flatnonzero(chosen)), self.take(np.flatnonzero(np.logical_not(chosen)))

    def take(self, places: NDArray[np.intp]) -> Bucket:
        """The requests at `places`."""
        counts = self.counts[places] if self.counts is not None else None
        read = self.read.take(places) if self.read is not None else None
        ids, data = ids_at(places, self.ids), strings_at(places, self.data)
        return Bucket(self.codec, self.model_id, self.outputs, self.indexes[places], ids, data, counts, read)

    def gather(self, features: FeatureSchema, limits: Limits) -> tuple[Inputs, NDArray[np.bool_]]:
        """The rows of the requests that the fast path can read; and bool (requests,), which requests these are."""
        if self.counts is None:
            return features.gather(self.codec, self.data, limits, self.read)
        rows = split_rows(library(), ENCODINGS[self.codec], Spans.of(self.data), int(self.counts.sum()))
        inputs, row_fits = features.gather(self.codec, rows, limits)
        fits = np.logical_and.reduceat(row_fits, np.cumsum(self.counts) - self.counts)
        of_readable = np.repeat(fits, self.counts)[row_fits]
        return inputs if of_readable.all() else inputs[of_readable], fits

    def rows_of(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where the rows of the requests at `places`, which ascend, are among the rows of all."""
        if self.counts is None:
            return places
        chosen = np.zeros(len(self.ids), np.bool_)
        chosen[places] = True
        return np.flatnonzero(np.repeat(chosen, self.counts))


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
        places, indexes, ids, counts = self.places, bucket.indexes, bucket.ids, bucket.counts
        if len(places) < len(ids):
            inputs = inputs[bucket.rows_of(places)]
            indexes, ids = indexes[places], ids_at(places, ids)
            counts = None if counts is None else counts[places]
        group.add_several(indexes, ids, inputs, None if counts is None else counts.tolist())


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
