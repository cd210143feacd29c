"""Formats of objects of any shape: JSON and MessagePack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.schemas.codecs import Codec
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.routes import Format, Path, Route, Sink
from inferd.streams.routes.formats.format import Reader, Schemas, Writer
from inferd.streams.routes.formats.object_results import ObjectResults
from inferd.streams.routes.formats.options import check_options
from inferd.streams.routes.formats.typed_tree import TreeReader


class ObjectFormat:
    """A `RecordFormat` with the name of its codec."""

    def __init__(self, codec: Codec, enricher: Callable[[str], Writer]) -> None:
        """`enricher`: makes the writer of the original plus a field of this name."""
        self.name = codec.name
        self._codec, self._enricher = codec, enricher

    def check(self, route: Route) -> None:
        check_options(route)

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        return TreeReader(self._codec, paths, new_field)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return self._enricher(sink.field) if sink.mode == "enrich" else ObjectResults(self._codec, tuple(sink.carry))
