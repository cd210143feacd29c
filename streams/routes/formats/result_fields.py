"""The fields of a result in a record of the sink, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferd.schemas.codecs import HOLE, Codec
from inferd.schemas.requests import OUTPUTS, output_fields
from inferd.streams.routes.formats.format import FailedRecord, Scored


def prediction_fields(scored: Scored) -> Iterator[dict[str, Any]]:
    """For each record: its outputs, `model_id` and `version`."""
    for values in zip(*scored.columns, strict=True):
        fields = output_fields(dict(zip(scored.outputs, values, strict=True)))
        yield fields | {"model_id": scored.model_id, "version": scored.version}


def failure_fields(failed: FailedRecord) -> dict[str, Any]:
    """`model_id` and `version` if they are known, and `error`."""
    fields: dict[str, Any] = {}
    if failed.model_id is not None:
        fields["model_id"] = failed.model_id
    if failed.version is not None:
        fields["version"] = failed.version
    return fields | {"error": {"code": failed.error.code, "message": failed.error.message}}


def encoded_results(scored: Scored, codec: Codec) -> list[bytes]:
    """The encoded fields of the result of each record."""
    if (pieces := result_pieces(scored, codec)) is None:
        return list(map(codec.encode, prediction_fields(scored)))
    head, tail = pieces
    return [head + value + tail for value in codec.encode_each(scored.columns[0])]


def result_pieces(scored: Scored, codec: Codec) -> tuple[bytes, bytes] | None:
    """What comes before and after the only output of a result; None if there are several or they are the model's."""
    if len(scored.outputs) != 1 or scored.outputs[0] not in OUTPUTS:
        return None
    fields = [(scored.outputs[0], HOLE), ("model_id", scored.model_id), ("version", scored.version)]
    head, tail = codec.map_pieces(fields)
    return head, tail
