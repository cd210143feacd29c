"""The format `oip`: requests of the Open Inference Protocol V2, which become its responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inferd.schemas.codecs import CONTENT_TYPE
from inferd.schemas.errors import InferenceError, InvalidValueError
from inferd.schemas.headers import JSON_LENGTH, OPEN_INFERENCE
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.open_inference import NamedRequest, decode_record, encode_error, encode_response, row_values
from inferd.schemas.requests import Prediction
from inferd.schemas.routes import Format, Path, Route, Sink, parse_path
from inferd.streams.routes.formats.format import (
    ByDocument,
    Described,
    Document,
    FailedRecord,
    Pending,
    Reader,
    Schemas,
    Scored,
    SourceRecord,
    Sources,
    Writer,
    Written,
)
from inferd.streams.routes.formats.options import check_options


class InferenceFormat:
    """A `RecordFormat`."""

    name = "oip"

    def check(self, route: Route) -> None:
        check_options(route)
        if route.sink.mode == "enrich":
            raise InvalidValueError(
                "format oip has no mode 'enrich': a request of the protocol has no room for a result; choose 'result'"
            )
        if route.sink.carry:
            raise InvalidValueError(
                "format oip carries no fields: a response of the protocol has the id of its request"
            )
        for text in route.features.values():
            _ = _tensor_of(parse_path(text))

    def reader(
        self,
        options: Format,
        paths: Sequence[Path],
        new_field: str | None,
        schemas: Schemas | None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Reader:
        return InferenceReader([_tensor_of(path) for path in paths], limits)

    def writer(self, options: Format, sink: Sink, schemas: Schemas | None) -> Writer:
        return InferenceResults()


def _tensor_of(path: Path) -> str:
    """The name of the tensor that a path names; "" if it is not in the value."""
    steps = path.steps
    if path.special is None and (len(steps) != 1 or not isinstance(steps[0], str)):
        raise InvalidValueError(f"format oip: path {path}: expected the name of an input")
    return str(steps[0]) if steps else ""


class InferenceReader(ByDocument):
    """Reads the rows of requests."""

    def __init__(self, names: Sequence[str], limits: Limits) -> None:
        """`names`: the inputs that are read."""
        self._names = names
        # The broker limits the size of records of others.
        self._limits = replace(limits, message_bytes_max=2**31 - 1)

    def read(self, records: Sequence[SourceRecord]) -> Sequence[Document | InferenceError | Pending]:
        return [self._read(record) for record in records]

    def _read(self, record: SourceRecord) -> Document | InferenceError:
        try:
            request, binary = decode_record(record.value, record.headers, self._limits)
            return Document((), request, rows=row_values(request, binary, self._names, self._limits))
        except InferenceError as error:
            return error


class InferenceResults:
    """Writes responses."""

    def predictions(self, sources: Sources, scored: Scored) -> Sequence[Written]:
        return [self._response(sources, index, scored) for index in range(len(sources.records))]

    def failure(self, source: Sources, failed: FailedRecord) -> Written:
        body = encode_error(failed.error.code, failed.error.message, source.documents[0].schema)
        return _described(source.records[0], body, None)

    def _response(self, sources: Sources, index: int, scored: Scored) -> Written:
        request: NamedRequest = sources.documents[index].schema
        outputs = {output: column[index] for output, column in zip(scored.outputs, scored.columns, strict=True)}
        for wanted in request.outputs:
            if wanted.name not in outputs:
                known = ", ".join(outputs)
                return InvalidValueError(f"output {wanted.name[:80]!r}: the outputs of the route are {known}")
        if request.outputs:
            outputs = {wanted.name: outputs[wanted.name] for wanted in request.outputs}
        prediction = Prediction(request.id or "", scored.model_id, scored.version, scored.digest, outputs)
        return _described(sources.records[index], *encode_response(prediction, request))


def _described(record: SourceRecord, body: bytes, json_bytes: int | None) -> Described:
    described: list[tuple[str, bytes | None]] = [(CONTENT_TYPE, OPEN_INFERENCE.encode())]
    if json_bytes is not None:
        described.append((JSON_LENGTH, b"%d" % json_bytes))
    kept = [each for each in record.headers if each[0].lower() not in (CONTENT_TYPE, JSON_LENGTH)]
    return Described(body, [*described, *kept])


INFERENCE_FORMAT = InferenceFormat()
