"""The mode `result` of formats without schemas: objects of the carried fields and those of the result."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.schemas.codecs import Codec
from inferd.streams.routes.formats.format import FailedRecord, Scored, Sources, Written
from inferd.streams.routes.formats.result_fields import encoded_results, failure_fields, prediction_fields


class ObjectResults:
    """A `Writer`."""

    def __init__(self, codec: Codec, names: Sequence[str]) -> None:
        """`names`: those of the carried fields."""
        self._codec, self._names = codec, names

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        if not sources.carried:
            return encoded_results(scored, self._codec)
        fields = zip(sources.carried, prediction_fields(scored), strict=True)
        encode, names = self._codec.encode, self._names
        return [encode({**dict(zip(names, values, strict=True)), **result}) for values, result in fields]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        # What is carried may be what cannot be read.
        carried = zip(self._names, source.carried[0], strict=True) if source.carried else ()
        return self._codec.encode({**dict(carried), **failure_fields(failed)})
