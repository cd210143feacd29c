"""A codec and a model format that only this test defines: registered with one line each, they work everywhere."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import requests

from inferd import BatchPredictor, ModelManager, ModelServer
from inferd.schemas import codecs
from inferd.schemas.codecs import HOLE, JSON, Codec, codec_named
from inferd.schemas.errors import MalformedError, UnsupportedContentTypeError
from inferd.schemas.headers import parse_content_type
from inferd.schemas.jobs import decode_job_message, encode_rows
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import (
    Failure,
    Output,
    Prediction,
    RowError,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from inferd.streams import inference
from inferd.streams.inference import Arrays, FileFeature, Inputs, ModelFile, ModelFormat, load_model, manifest_of
from inferd.streams.inference.catalog import Version
from tests.fixtures.lane import DEAD_LETTERS, RESULTS, Bench, request, tp

# ------------------------------------------------------------------------------------------------------------ the codec
# A letter (n t f d i s b a m), a length of four bytes for the last four, and the content.


def encode(value: Any) -> bytes:  # noqa: PLR0911  # a case for each type
    match value:
        case None | True | False:
            return {None: b"n", True: b"t", False: b"f"}[value]
        case msgspec.Raw():
            return bytes(value)
        case float():
            return b"d" + struct.pack(">d", value)
        case int():
            return b"i" + value.to_bytes(8, "big", signed=True)
        case str():
            return _sized(b"s", value.encode())
        case bytes():
            return _sized(b"b", value)
        case list() | tuple():
            return array(len(value), b"".join(map(encode, value)))
        case Mapping():
            return b"".join(map_pieces(list(value.items())))
        case msgspec.Struct():
            return encode({k: v for k, v in msgspec.structs.asdict(value).items() if v is not msgspec.UNSET})
    raise TypeError(f"{type(value).__name__} cannot be encoded")


def _sized(letter: bytes, content: bytes) -> bytes:
    return letter + len(content).to_bytes(4, "big") + content


def array(count: int, items: bytes) -> bytes:
    return b"a" + count.to_bytes(4, "big") + items


def map_pieces(fields: Sequence[tuple[str, Any]]) -> list[bytes]:
    pieces = [b"m" + len(fields).to_bytes(4, "big")]
    for key, value in fields:
        pieces[-1] += encode(key)
        if value is HOLE:
            pieces.append(b"")
        else:
            pieces[-1] += encode(value)
    return pieces


def decoder(type_: Any) -> Any:
    members = get_args(type_) or (type_,)
    structs = [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]
    raw = {field.encode_name for each in structs for field in msgspec.structs.fields(each) if field.type is msgspec.Raw}

    def decode(data: Any) -> Any:
        data = bytes(data)
        value, end = _value(data, 0, raw, everything=msgspec.Raw in members)
        if end != len(data):
            raise ValueError("trailing bytes")
        return msgspec.convert(value, type_)

    return decode


def _value(data: bytes, at: int, raw: Iterable[str] = (), *, everything: bool = False) -> tuple[Any, int]:
    """A value and its end; of its items, those of the keys `raw`, or all, stay encoded."""

    def item(at: int, key: str = "") -> tuple[Any, int]:
        value, end = _value(data, at)
        return (msgspec.Raw(data[at:end]) if everything or key in raw else value), end

    letter, size, body = data[at : at + 1], int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    if letter in b"ntf" and letter:
        return {b"n": None, b"t": True, b"f": False}[letter], at + 1
    if letter in b"di" and len(data) >= at + 9:
        content = data[at + 1 : at + 9]
        return struct.unpack(">d" if letter == b"d" else ">q", content)[0], at + 9
    if letter in b"sb" and len(data) >= body + size:
        content = data[body : body + size]
        return content.decode() if letter == b"s" else content, body + size
    if letter == b"a":
        items = []
        for _ in range(size):
            value, body = item(body)
            items.append(value)
        return items, body
    if letter == b"m":
        pairs = {}
        for _ in range(size):
            key, body = _value(data, body)
            pairs[key], body = item(body, key)
        return pairs, body
    raise ValueError(f"no value at byte {at}")


def kinds(data: bytes) -> tuple[Any, Any]:
    of = {b"a": "array", b"m": "map"}
    return of.get(data[:1], "scalar"), of.get(data[5:6], "scalar") if data[:1] == b"a" else "scalar"


TOY = Codec(
    name="toy",
    title="Toy",
    content_type="application/x-toy",
    binary=True,
    non_finite=True,
    separator=b"",
    number_bytes_max=9,
    encode=encode,
    encode_sorted=encode,
    decoder=decoder,
    kinds=kinds,
    array=array,
    claimed_length=lambda data: int.from_bytes(data[1:5], "big"),
    map_pieces=map_pieces,
    fault=lambda data, depth_max, depth, values_max: None,
    nested_deeper=lambda data, levels: False,
    repeats_key=lambda data, keys, inner: data[:1] == b"m" and int.from_bytes(data[1:5], "big") != keys,
    claimed_keys=lambda data, layout, limits: None,
    check_numbers=lambda data, rows: None,
    mentions=lambda data, key: key in data,
    resembles=lambda data: data[:1] == b"m",
)
HEADER = ("content-type", b"application/x-toy")


# ----------------------------------------------------------------------------------------------------- the model format
MODEL = b"TOTAL a b"


@dataclass(frozen=True)
class TotalRuntime:
    """Predicts the sum of a row."""

    feature_names: tuple[str, ...]
    outputs_per_row: int = 1
    objective: str | None = None

    @property
    def n_features(self) -> int:
        return len(self.feature_names)

    def supports(self, output: Output) -> bool:
        return output == "prediction"

    def values_per_row(self, output: Output) -> int:
        return 1

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        assert isinstance(inputs, np.ndarray)
        return {output: inputs.sum(axis=1) for output in outputs}

    def close(self) -> None:
        pass


def read(content: bytes, limits: Limits) -> ModelFile:
    features = tuple(FileFeature(name=name) for name in content.decode().split()[1:])
    return ModelFile(runtime="total", sha256=hashlib.sha256(content).hexdigest(), size=len(content), features=features)


TOTAL = ModelFormat(
    name="total",
    begins="TOTAL",
    sniff=lambda content: content.startswith(b"TOTAL "),
    read=read,
    load=lambda content, file, threads: TotalRuntime(file.feature_names),
    load_library=lambda: None,
    library_version=lambda: "1",
)


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    codecs.register(TOY)
    inference.register(TOTAL)
    yield
    codecs.unregister("toy")
    inference.unregister("total")


@pytest.fixture
def manager(tmp_path: Path) -> ModelManager:
    manager = ModelManager(tmp_path / "store")
    manager.register("total", MODEL, trial=False)
    manager._directory.passed_trial(manager.list()[0])
    return manager


# ------------------------------------------------------------------------------------------------------------ the tests
async def test_a_request_passes_through_the_lane(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODEL)
    manifest = manifest_of(MODEL, "total", 1)
    bench.catalog.put(Version(manifest, "ready", None, load_model(path, manifest)))
    await bench.own(0)
    rows: list[Any] = [[1.5, 2.0], {"a": 1, "b": 2}, [[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0]]), [1.0]]
    fetched = [request(offset) for offset in range(len(rows) + 1)]
    for record, row in zip(fetched, rows, strict=False):
        record.value, record.headers = encode_request(row, "total", id="r", codec=TOY), (HEADER,)
    fetched[-1].value, fetched[-1].headers = b"m\x00\x00\x00\x01", (HEADER,)
    bench.lane.feed(tp(0), fetched)
    await bench.until(lambda: sum(len(sent.records) for sent in bench.broker.sent) == len(fetched) + 1)
    published = [record for sent in bench.broker.sent if sent.topic == RESULTS for record in sent.records]
    assert {headers[0] for _, _, headers in published} == {HEADER}
    results = [decode_result(value, TOY) for _, value, _ in published]
    predictions = [each.outputs["prediction"] for each in results if isinstance(each, Prediction)]
    assert predictions == [3.5, 3.0, [3.0, 7.0], [3.0]]
    assert [each.code for each in results if isinstance(each, Failure)] == ["schema_mismatch", "malformed"]
    (dead,) = [record for sent in bench.broker.sent if sent.topic == DEAD_LETTERS for record in sent.records]
    assert dead[1] == fetched[-1].value


def test_a_request_is_answered_over_http(manager: ModelManager) -> None:
    with ModelServer(manager, port=0) as server:
        url, headers = f"{server.url}/predict/total", {"Content-Type": "application/x-toy"}
        answer = requests.post(url, data=encode({"input_data": [1.5, 2]}), headers=headers, timeout=20)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-toy")
        result = decode_result(answer.content, TOY)
        assert isinstance(result, Prediction)
        assert (result.model_id, result.outputs) == ("total", {"prediction": 3.5})
        other = requests.post(url, data=b"{}", headers={"Content-Type": "application/yaml"}, timeout=20).json()
        assert "application/msgpack or application/json or application/x-toy" in other["error"]["message"]
        described = requests.get(f"{server.url}/openapi.json", timeout=20).json()["paths"]["/predict/{model_id}"][
            "post"
        ]
    known = ["application/msgpack", "application/json", "application/x-toy"]
    assert list(described["requestBody"]["content"]) == list(described["responses"]["200"]["content"]) == known


def test_a_job_is_processed_over_http(manager: ModelManager) -> None:
    batches = BatchPredictor(manager)
    with ModelServer(manager, port=0, batch_predictor=batches) as server:
        body = {"model_id": "total", "input_batch": [[1, 2], {"a": 2, "b": 3}, [1]], "job_id": "j"}
        headers = {"Content-Type": "application/x-toy"}
        assert requests.post(f"{server.url}/jobs", data=encode(body), headers=headers, timeout=20).status_code == 202
        batches.get_batch_results("j", timeout_s=20)
        lines = requests.get(f"{server.url}/jobs/j/results", timeout=20).text.splitlines()
    rows = [msgspec.json.decode(line) for line in lines]
    assert [row.get("prediction") or row["error"]["code"] for row in rows] == [3, 5, "schema_mismatch"]


def test_rows_of_a_job_are_cut_without_decoding_them() -> None:
    message = decode_job_message(encode_rows(0, [[1.0], [2.0], {"a": 3}], TOY), TOY, DEFAULT_LIMITS)
    batch = message.batch  # type: ignore[union-attr]
    assert (batch.count, batch.cut(1, 3)) == (3, encode([[2.0], {"a": 3}]))
    assert batch.pick([2, 0]) == encode([{"a": 3}, [1.0]])


@pytest.mark.parametrize(
    "result",
    [
        Prediction("r", "m", 1, "d", {"prediction": [1.0, None]}, [RowError(1, "invalid_value", "text")]),
        Failure("r", None, "malformed", "text", False),
    ],
    ids=["prediction", "failure"],
)
def test_results_round_trip(result: Any) -> None:
    assert decode_result(encode_result(result, TOY), TOY) == result


def test_errors_name_the_codecs_of_the_registry() -> None:
    with pytest.raises(
        UnsupportedContentTypeError, match="application/msgpack or application/json or application/x-toy"
    ):
        parse_content_type(b"text/plain")
    with pytest.raises(MalformedError, match="encoding 'xml' is unknown; known are msgpack, json, toy"):
        codec_named("xml")
    with pytest.raises(MalformedError, match="looks like Toy, which needs the header content-type: application/x-toy"):
        decode_request(encode_request([1], "m", codec=TOY), JSON, DEFAULT_LIMITS)


def test_a_name_and_a_content_type_are_registered_once() -> None:
    codecs.register(TOY)
    with pytest.raises(ValueError, match="is registered already"):
        codecs.register(copy_of(TOY, content_type="application/x-other"))
    with pytest.raises(ValueError, match="is registered already"):
        codecs.register(copy_of(TOY, name="other"))


def copy_of(codec: Codec, **changes: Any) -> Codec:
    fields = {name: getattr(codec, name) for name in codec.__slots__ if name != "header"}
    return Codec(**{**fields, **changes})
