"""The scoring of a route, written by hand for the peers: decoding, one predict, appending the field."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from bench.layouts import FEATURES
from bench.libraries import LIBRARIES
from bench.peers.task import PeerTask, RecordFormat

FIELD = "score"
FIELD_NAMES = [f"f{number}" for number in range(FEATURES)]
"""Names of the features in the inner record `order`."""
AVRO_SCHEMA = {
    "type": "record",
    "name": "Record",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "note", "type": "string"},
        {
            "name": "order",
            "type": {
                "type": "record",
                "name": "Order",
                "fields": [{"name": name, "type": ["null", "double"]} for name in FIELD_NAMES],
            },
        },
        {"name": "paid", "type": "boolean"},
    ],
}
Append = Callable[[bytes, float], bytes]


class RoutedScorer:
    """Adds a prediction to records."""

    def __init__(self, task: PeerTask, record_format: RecordFormat) -> None:
        self._predict = LIBRARIES[task.library](task.model_path)
        self._rows, self._append = {"json": _of_json, "avro": _of_avro}[record_format](task)

    def results(self, values: Iterable[bytes]) -> list[bytes]:
        """The records with their predictions, in their order; at least one."""
        values, append = list(values), self._append
        predictions = self._predict(self._rows(values))
        return [append(value, prediction) for value, prediction in zip(values, predictions, strict=True)]


def _of_json(task: PeerTask) -> tuple[Callable[[Sequence[bytes]], list[Any]], Append]:
    """Typed decoding of the needed fields; the field is spliced in."""
    order: Any = msgspec.defstruct("Order", [(name, float) for name in FIELD_NAMES], gc=False)
    record: Any = msgspec.defstruct("Record", [("order", order)], gc=False)
    decode, astuple, encode = msgspec.json.Decoder(record).decode, msgspec.structs.astuple, msgspec.json.encode
    head = b',"%s":{"prediction":' % FIELD.encode()
    rest = b',"model_id":"%s","version":%d}}' % (task.model_id.encode(), task.version)
    return (
        lambda values: [astuple(decode(value).order) for value in values],
        lambda value, prediction: value[:-1] + head + encode(prediction) + rest,
    )


def _of_avro(task: PeerTask) -> tuple[Callable[[Sequence[bytes]], list[Any]], Append]:
    """Decoding by fastavro; the field, a record of a double, a string and an int, is appended."""
    import fastavro

    read: Any = fastavro.schemaless_reader
    schema, pack = fastavro.parse_schema(AVRO_SCHEMA), struct.Struct("<d").pack
    rest = b"%c%s%c" % (2 * len(task.model_id), task.model_id.encode(), 2 * task.version)
    return (
        lambda values: [list(read(io.BytesIO(value), schema, None)["order"].values()) for value in values],
        lambda value, prediction: value + pack(prediction) + rest,
    )


def encoder(record_format: RecordFormat) -> Callable[[Any], bytes]:
    """Encodes the source's records."""
    if record_format == "json":
        return msgspec.json.encode
    import fastavro

    schema = fastavro.parse_schema(AVRO_SCHEMA)

    def encode(record: Any) -> bytes:
        written = io.BytesIO()
        fastavro.schemaless_writer(written, schema, record)
        return written.getvalue()

    return encode


def reader(record_format: RecordFormat) -> Callable[[bytes], tuple[int, Callable[[float], bool]]]:
    """Reads the number of a scored record, and whether it has a certain prediction."""
    if record_format == "json":
        return _read_json
    import fastavro

    schema = fastavro.parse_schema(AVRO_SCHEMA)

    def read(value: bytes) -> tuple[int, Callable[[float], bool]]:
        source = io.BytesIO(value)
        record: Any = fastavro.schemaless_reader(source, schema, None)
        field = source.read()
        return record["id"], lambda prediction: struct.pack("<d", prediction) in field

    return read


def _read_json(value: bytes) -> tuple[int, Callable[[float], bool]]:
    record = json.loads(value)
    return record["id"], lambda prediction: record[FIELD]["prediction"] == prediction
