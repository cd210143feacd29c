"""Requests in other protocols as targets: any record is opened, and its error is answered in kind."""

from __future__ import annotations

import json
from collections.abc import Sequence

from inferd.schemas.codec import decode_request
from inferd.schemas.errors import InferenceError
from inferd.schemas.headers import parse_request_headers, salvage_headers
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.protocols import Exchange, Exchanges
from inferd.schemas.requests import Failure
from inferd.schemas.requests.result_codec import encode_result
from tests.fuzz.checks import FindingError
from tests.fuzz.frames import Headers, pack_record, unpack_record
from tests.fuzz.target import Target

OIP, EVENT = b"application/vnd.oip.v2+json", b"application/cloudevents+json"
DATA = {"model_id": "m", "input_data": [1, 2], "id": "r"}
TENSORS = [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, None], "parameters": {"content_type": "np"}}]
BINARY = [{"name": "x", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}}]
ATTRIBUTES = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "time": "2026-01-02T03:04:05.5+01:00"}
_exchanges = Exchanges(DEFAULT_LIMITS)


def targets() -> list[Target]:
    """All of them."""
    return [Target("exchange", "record", _open, _seeds, weight=2.0)]


def _open(data: bytes) -> None:
    """Opens a record; the answer to it must be possible whatever it is."""
    value, headers, _ = unpack_record(data)
    try:
        parsed = parse_request_headers(headers, DEFAULT_LIMITS)
    except InferenceError as error:
        exchange = _exchanges.open(salvage_headers(headers, DEFAULT_LIMITS), value, headers, 0, 1, -1)
        _answer(exchange, error)
        raise
    exchange = _exchanges.open(parsed, value, headers, 0, 1, 1_767_322_800_123)
    if exchange is None:
        return
    try:
        if isinstance(exchange.request, InferenceError):
            raise exchange.request
        decode_request(exchange.request, exchange.codec, DEFAULT_LIMITS)
    except InferenceError as error:
        _answer(exchange, error)
        raise


def _answer(exchange: Exchange | None, error: InferenceError) -> None:
    if exchange is None:
        return
    answer = exchange.answer(encode_result(Failure.of(error, "0-1", exchange.model_id), exchange.codec))
    described = dict(answer.headers)
    if described["content-type"] in (OIP, EVENT) and not isinstance(json.loads(answer.value), dict):
        raise FindingError("an answer that is no object")
    if answer.headers[0][0] != "content-type":
        raise FindingError("the content-type is not the first header")


def _seeds() -> list[bytes]:
    binary: Headers = [(f"ce_{name}", value.encode()) for name, value in ATTRIBUTES.items()]
    length: Headers = [("content-type", OIP), ("Inference-Header-Content-Length", b"%d" % len(_text(_oip(BINARY))))]
    found: list[tuple[bytes, Headers]] = [
        (_text(_oip(TENSORS)), [("content-type", OIP)]),
        (_text({"inputs": TENSORS}), [("content-type", OIP), ("mlserver-model", b"m"), ("mlserver-version", b"1")]),
        (_text(_oip(BINARY)) + b"\x01\x02", length),
        (_text(DATA), [("content-type", b"application/json"), *binary]),
        (_text(_oip(TENSORS)), [("content-type", OIP), *binary]),
        (_text({**ATTRIBUTES, "data": DATA}), [("content-type", EVENT)]),
        (_text({**ATTRIBUTES, "data_base64": "gqE="}), [("content-type", EVENT)]),
        (_text({**ATTRIBUTES, "datacontenttype": OIP.decode(), "data": _oip(TENSORS)}), [("content-type", EVENT)]),
        (b"[]", [("content-type", b"application/cloudevents-batch+json")]),
    ]
    cut = [(value, _without(headers, place)) for value, headers in found for place in range(len(headers))]
    return [pack_record(value, headers) for value, headers in (*found, *cut)]


def _without(headers: Headers, place: int) -> Sequence[tuple[str, bytes | None]]:
    return [header for index, header in enumerate(headers) if index != place]


def _oip(inputs: object) -> dict[str, object]:
    return {"model_name": "m", "id": "q", "inputs": inputs, "outputs": [{"name": "raw"}]}


def _text(value: object) -> bytes:
    return json.dumps(value).encode()
