"""How records of a route become rows of one model version."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.limits import Limits
from inferd.schemas.requests import DEFAULT_OUTPUTS, Output, Scalar, check_outputs
from inferd.schemas.routes import Path, Route, parse_path
from inferd.streams.inference import Record, ServedModel
from inferd.streams.routes.formats import Document, Reader, Schemas, Value, Writer, format_named

_Source = Callable[[Record, Document], Value]


class RoutePlan:
    """The reader of a route for a model version, and the writer of its sink."""

    def __init__(self, route: Route, model: ServedModel, schemas: Schemas | None, limits: Limits) -> None:
        """`SchemaMismatchError` or `InvalidValueError` if the route does not fit the model or the format."""
        self.model = model
        self.outputs = outputs_of(route)
        model.check_outputs(self.outputs)
        source, names = route.source, model.features.feature_names
        check_features(route, names)
        record_format = format_named(source.format.name)
        record_format.check(route)
        self._numbers = {each.name for each in model.manifest.features if each.dtype not in ("text", "category")}
        paths = [_path_of(route, name) for name in names if name not in route.constants]
        carried = [parse_path(text) for text in route.sink.carry.values()]
        in_value = [path for path in (*paths, *carried) if path.special is None]
        self._places = {id(path): place for place, path in enumerate(in_value)}
        new_field = route.sink.field if route.sink.mode == "enrich" else None
        self.reader: Reader = record_format.reader(source.format, in_value, new_field, schemas, limits)
        self.writer: Writer = record_format.writer(source.format, route.sink, schemas)
        self._direct = len(paths) == len(in_value) == len(names)
        self.row_reader = self.reader.row_reader(model.features) if self._direct else None
        """Reads the rows of usual records at once; None if the format, the paths or the features do not allow it."""
        by_name = dict(zip([name for name in names if name not in route.constants], paths, strict=True))
        self._row = [
            _constant(route.constants[name]) if name in route.constants else self._source(by_name[name], name)
            for name in names
        ]
        self._carried = [self._source(path, None) for path in carried]

    def rows(self, records: Sequence[Record], documents: Sequence[Document]) -> list[list[Value]]:
        """The values of the features, in the model's order."""
        if self._direct:
            return [list(document.values) for document in documents]
        row = self._row
        return [
            [source(record, document) for source in row]
            for record, document in zip(records, documents, strict=True)
        ]  # fmt: skip

    def carried(self, records: Sequence[Record], documents: Sequence[Document]) -> list[list[Value]]:
        """The values of the carried fields; empty if there are none."""
        if not self._carried:
            return []
        return [
            [source(record, document) for source in self._carried]
            for record, document in zip(records, documents, strict=True)
        ]  # fmt: skip

    def _source(self, path: Path, feature: str | None) -> _Source:
        if path.special is None:
            place = self._places[id(path)]
            return lambda _, document: document.values[place]
        as_number = feature in self._numbers
        special = _SPECIAL[path.special]

        def source(record: Record, document: Document) -> Value:
            value = special(record, document, path)
            return _number(value) if as_number else value

        return source


def outputs_of(route: Route) -> tuple[Output, ...]:
    """The outputs that a route asks for."""
    return DEFAULT_OUTPUTS if route.outputs is None else check_outputs(route.outputs)


def check_features(route: Route, names: Sequence[str]) -> None:
    """`SchemaMismatchError`, naming it, for a feature that the model does not have."""
    for name in (*route.features, *route.constants):
        if name not in names:
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise SchemaMismatchError(f"feature {name[:80]!r}: the model {route.model} has the features {shown}")


def _path_of(route: Route, feature: str) -> Path:
    if feature in route.features:
        # A new object: places are found by identity, and two features may have one path.
        path = parse_path(route.features[feature])
        return Path(path.text, path.steps, path.special, path.header)
    return Path(feature, (feature,))


def _constant(value: Scalar) -> _Source:
    return lambda _record, _document: value


def _key(record: Record, _document: Document, _path: Path) -> Value:
    return _text(record.key, "$key")


def _timestamp(record: Record, _document: Document, _path: Path) -> Value:
    return record.timestamp if record.timestamp >= 0 else None


def _header(record: Record, document: Document, path: Path) -> Value:
    """The last header of the name, as Kafka Streams and Kafka Connect read it."""
    for name, value in reversed(record.headers if document.headers is None else document.headers()):
        if name == path.header:
            return _text(value, path.text)
    return None


def _text(value: bytes | None, what: str) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise InvalidValueError(f"record: {what} is not UTF-8") from None


def _number(value: Value) -> Value:
    """The number in a text of a key or a header, if it is one."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


_SPECIAL: dict[str, Callable[[Record, Document, Path], Value]] = {
    "key": _key,
    "timestamp": _timestamp,
    "header": _header,
}
