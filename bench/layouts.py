"""Layouts of requests and results, as producers write them and loops by hand read them. Does not import LightGBM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final

import msgpack
import msgspec

FEATURES: Final = 30
NAMES: Final = tuple(f"Column_{number}" for number in range(FEATURES))
"""LightGBM's own names of the features."""
MODEL_ID: Final = "bench"
DEFAULT: Final = "list-msgpack"
OPEN_INFERENCE: Final = "open-inference"
Headers = tuple[tuple[str, str | bytes | None], ...]
CATEGORIES: Final = tuple(f"carrier {number}" for number in range(20))
"""Of the last feature of a layout with categories; rows have their indices."""
_BY_NAME = itemgetter(*NAMES)
_NUMBERS_BY_NAME = itemgetter(*NAMES[:-1])
_CODES: Final = {category: float(code) for code, category in enumerate(CATEGORIES)}


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: `input_data` of a row, and the encoding of requests and results."""

    name: str
    title: str
    headers: Headers
    """Of each request."""
    input_data: Callable[[Sequence[Any]], Any]
    """Of the values of a row."""
    values: Callable[[Any], Sequence[Any]]
    """The values of a row again, from its `input_data`."""
    write: Callable[[Any], bytes]
    """Encodes a request as its producer does."""
    decode: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    """Encodes a result."""
    read: Callable[[bytes], Any]
    """A result again, from its bytes."""
    id_is_key: bool = False
    """Whether the key of a record is the id of its request."""
    categories: tuple[str, ...] = ()
    """Of the last feature; rows have their indices, requests their names."""


def _named(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(NAMES, row, strict=True))


def _named_with_category(row: Sequence[Any]) -> dict[str, Any]:
    return _named([*row[:-1], CATEGORIES[int(row[-1])]])


def _values_with_category(data: dict[str, Any]) -> Sequence[Any]:
    return (*_NUMBERS_BY_NAME(data), _CODES[data[NAMES[-1]]])


def _tensor(row: Sequence[Any]) -> list[dict[str, Any]]:
    """A row as the only input of the Open Inference Protocol."""
    datatype, content_type = ("BYTES", "str") if isinstance(row[0], str) else ("FP64", "np")
    parameters = {"content_type": content_type}
    return [{"name": "row", "shape": [1, len(row)], "datatype": datatype, "parameters": parameters, "data": row}]


def _decode_inference(value: bytes) -> dict[str, Any]:
    request = msgspec.json.decode(value)
    return {"id": request["id"], "model_id": MODEL_ID, "input_data": request["inputs"]}


def _encode_inference(result: dict[str, Any]) -> bytes:
    prediction = result["prediction"]
    datatype = {float: "FP64", int: "INT64", str: "BYTES"}[type(prediction)]
    return msgspec.json.encode(
        {
            "id": result["id"],
            "model_name": result["model_id"],
            "model_version": version_name(result["version"], result["digest"]),
            "outputs": [{"name": "prediction", "shape": [1], "datatype": datatype, "data": [prediction]}],
        }
    )


def _read_inference(value: bytes) -> dict[str, Any]:
    response = msgspec.json.decode(value)
    version, _, digest = response["model_version"].partition(".")
    (prediction,) = response["outputs"][0]["data"]
    model_id = response["model_name"]
    return {
        "id": response["id"],
        "model_id": model_id,
        "version": int(version),
        "digest": digest,
        "prediction": prediction,
    }


def version_name(version: int, digest: str) -> str:
    """`model_version` of responses of the Open Inference Protocol, which have no field for the digest."""
    return f"{version}.{digest}"


NAMED_JSON: Final = Layout(
    name="named-json",
    title="30 float64 by name, JSON as json.dumps writes it, about 1,100 bytes",
    headers=(("content-type", b"application/json"),),
    input_data=_named,
    values=_BY_NAME,
    write=lambda request: json.dumps(request).encode(),
    decode=msgspec.json.decode,
    encode=msgspec.json.encode,
    read=msgspec.json.decode,
)
LAYOUTS: Final = {
    layout.name: layout
    for layout in (
        Layout(
            name="list-msgpack",
            title="a list of 30 float64, msgpack, about 320 bytes",
            headers=(),
            input_data=list,
            values=lambda data: data,
            write=msgpack.packb,
            decode=msgpack.unpackb,
            encode=msgpack.packb,
            read=msgpack.unpackb,
        ),
        NAMED_JSON,
        replace(
            NAMED_JSON,
            name="named-json-category",
            title="29 float64 and a category by name, JSON as json.dumps writes it, about 1,100 bytes",
            input_data=_named_with_category,
            values=_values_with_category,
            categories=CATEGORIES,
        ),
        Layout(
            name="list-json",
            title="a list of 30 float64, JSON as json.dumps writes it, about 660 bytes",
            headers=(("content-type", b"application/json"),),
            input_data=list,
            values=lambda data: data,
            write=lambda request: json.dumps(request).encode(),
            decode=msgspec.json.decode,
            encode=msgspec.json.encode,
            read=msgspec.json.decode,
        ),
        Layout(
            name=OPEN_INFERENCE,
            title="a tensor of 30 FP64, JSON of the Open Inference Protocol, about 720 bytes",
            headers=(("mlserver-model", MODEL_ID.encode()),),
            input_data=_tensor,
            values=lambda inputs: inputs[0]["data"],
            write=lambda request: json.dumps({"id": request["id"], "inputs": request["input_data"]}).encode(),
            decode=_decode_inference,
            encode=_encode_inference,
            read=_read_inference,
            id_is_key=True,  # MLServer takes the key for the id
        ),
    )
}
