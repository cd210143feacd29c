"""The envelope kernel beside the typed decoder, its equivalent in Python."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from inferd.schemas.limits import Limits
from inferd.streams.inference.features import ENCODINGS, ID_BYTES
from inferd.streams.inference.kernels import EnvelopeKernel, library, split_rows
from inferd.streams.inference.kernels.envelopes import KINDS_MAX
from inferd.streams.inference.kernels.rows import Encoding
from inferd.streams.inference.scoring import Scorer
from inferd.streams.inference.spans import Spans
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, KernelScorer, both, catalog_of, score
from tests.fuzz import envelope_kernel

pytestmark = pytest.mark.usefixtures("built")


def pack_list(encoding: Encoding, items: Any) -> bytes:
    return json.dumps(items).encode() if encoding == "json" else bytes(msgpack.packb(items))


def pack(encoding: Encoding, **body: Any) -> bytes:
    return pack_list(encoding, body)


def read(encoding: Encoding, *values: bytes, id_chars_max: int = 128, bytes_max: int = 10_000) -> Any:
    return EnvelopeKernel(library(), ID_BYTES, id_chars_max, bytes_max).read(encoding, values)


def test_the_kernel_equals_the_typed_decoder_without_access_out_of_bounds() -> None:
    assert envelope_kernel.fuzz_envelope_kernel(60, seed=1, rounds=400).startswith("envelope kernel: ")


class Altered:
    """The kernels, except that one changes what it has read."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def read_envelopes(self, *arguments: Any) -> int:
        return self.change(library().read_envelopes, *arguments)  # type: ignore[no-any-return]


def longer_ids(stock: Any, *arguments: Any) -> int:
    *others, id_max, schema, matrix, models, envelopes = arguments
    return stock(*others, id_max + 1, schema, matrix, models, envelopes)  # type: ignore[no-any-return]


def larger_requests(
    stock: Any, encoding: int, content: Any, starts: int, ends: int, count: int, _: int, *others: Any
) -> int:
    return stock(encoding, content, starts, ends, count, 10**9, *others)  # type: ignore[no-any-return]


def other_rows(stock: Any, *arguments: Any) -> int:
    """Reads rows by the schema with its features in another order."""
    *others, schema, matrix, models, envelopes = arguments
    other = envelope_kernel.row_kernel(("b", "a")).schema_at if schema else None
    return stock(*others, other, matrix, models, envelopes)  # type: ignore[no-any-return]


@pytest.mark.parametrize("change", [longer_ids, larger_requests, other_rows], ids=lambda each: each.__name__)
def test_the_comparison_finds_planted_mistakes(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    altered: Any = Altered(change)
    kernel = EnvelopeKernel(altered, ID_BYTES, envelope_kernel.ID_CHARS_MAX, 400)
    monkeypatch.setattr(envelope_kernel, "BYTES_MAX", 400)
    monkeypatch.setattr(envelope_kernel, "kernel", lambda: kernel)
    with pytest.raises(AssertionError):
        envelope_kernel.fuzz_envelope_kernel(60, seed=3)


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_requests_are_sorted_by_model_and_by_whether_they_list_rows(encoding: Encoding) -> None:
    values = [
        pack(encoding, id=f"r{number}", model_id="ab"[number % 2], input_data=[number]) for number in range(5)
    ] + [pack(encoding, model_id="a", input_data={"x": 1}), pack(encoding, model_id="a", input_data=[[1]])]
    (a, b, lists), left = read(encoding, *values)
    assert (a.model_id, a.indexes.tolist(), a.ids) == ("a", [0, 2, 4, 5], ["r0", "r2", "r4", None])
    assert (b.model_id, b.indexes.tolist(), list(b.ids)) == ("b", [1, 3], ["r1", "r3"])
    assert list(b.data) == [msgpack.packb([n]) if encoding == "msgpack" else b"[%d]" % n for n in (1, 3)]
    assert (lists.model_id, lists.indexes.tolist(), lists.counts.tolist()) == ("a", [6], [1])
    assert left == []
    assert a.counts is b.counts is None


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_requests_are_sorted_by_outputs(encoding: Encoding) -> None:
    outputs: list[Any] = [["raw"], ["raw", "prediction"], ["raw"]]
    values = [pack(encoding, model_id="a", input_data=[1], outputs=each) for each in outputs]
    found, left = read(encoding, *values, pack(encoding, model_id="a", input_data=[1]))
    assert [plain.indexes.tolist() for plain in found] == [[0, 2], [1], [3]]
    assert [plain.outputs and len(plain.outputs) for plain in found] == [
        len(pack_list(encoding, o)) for o in outputs[:2]
    ] + [None]
    assert left == []


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_lists_are_split_into_rows(encoding: Encoding) -> None:
    lists: list[Any] = [[[1, 2], [3]], [{"a": 1}], [[]]]
    content = [pack_list(encoding, each) for each in lists]
    rows = split_rows(library(), encoding, Spans.of(content), 4)
    assert list(rows) == [pack_list(encoding, row) for each in lists for row in each]
    for wrong in (3, 5):
        with pytest.raises(ValueError, match=f"do not have {wrong} rows"):
            split_rows(library(), encoding, Spans.of(content), wrong)


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_requests_of_too_many_kinds_are_left(encoding: Encoding) -> None:
    found, left = read(encoding, *(pack(encoding, model_id=f"m{n}", input_data=[n]) for n in range(KINDS_MAX + 3)))
    assert len(found) == KINDS_MAX
    assert left == [KINDS_MAX, KINDS_MAX + 1, KINDS_MAX + 2]


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"{}", b"[]", b'{"model_id":"m"}', b'{"model_id":"m","input_data":[1]}x', b'{"input_data":[1]}',
        b'{"model_id":"m","input_data":[1],}', b'{"model_id":"m" "input_data":[1]}', b'{"model_id":"m","input_data":[1',
        b'{"model_id":"m","input_data":[1],"id":"r","id":"r"}', b'{"model_id":"m","input_data":[1],"more":1}',
        b'{"model_id":"\xff","input_data":[1]}', b'{"model_id":"m","input_data":"[1]"}',
        b'{"model_id":"m","input_data":[1}]}',
        b'{"model_\\u0069d":"m","input_data":[1]}', b'{"model_id":"m","input_data":["\\n"]}',
    ],
)  # fmt: skip
def test_anything_unusual_is_left_to_the_typed_decoder(value: bytes) -> None:
    assert read("json", value) == ([], [0])


def test_a_request_at_its_limits_is_read_and_one_beyond_is_left() -> None:
    value = pack("json", id="r" * 7, model_id="m", input_data=[1])
    assert read("json", value, id_chars_max=7, bytes_max=len(value))[1] == []
    assert read("json", value, id_chars_max=6)[1] == [0]
    assert read("json", value, bytes_max=len(value) - 1)[1] == [0]


@pytest.mark.parametrize("encoding", ENCODINGS.values())
def test_scores_are_the_same_bytes_with_and_without_the_kernel(encoding: Encoding) -> None:
    headers = (("content-type", b"application/json"),) if encoding == "json" else ()
    bodies: list[dict[str, Any]] = [
        {"id": "r0", "model_id": "sum", "input_data": [1.0, 2.0]},
        {"model_id": "sum:1", "input_data": {"a": 1, "b": 2}},
        {"id": "r2", "model_id": "sum", "input_data": [1.0]},
        {"id": "é", "model_id": "sum", "input_data": [1.0, 2.0]},
        {"id": "r4", "model_id": "none", "input_data": [1.0, 2.0]},
        {"id": "r5", "model_id": "", "input_data": [1.0, 2.0]},
        {"id": "r6", "model_id": "sum", "input_data": [1.0, 2.0], "outputs": ["raw"]},
        {"id": "r7", "model_id": "sum", "input_data": [[1.0, 2.0]]},
        {"id": "r8", "model_id": "sum@none", "input_data": {"a": 1, "c": 2}},
        {"id": "r9", "model_id": "sum", "input_data": [[1.0, 2.0], [3.0, 4.0]]},
        {"model_id": "sum", "input_data": [{"a": 1, "b": 2}, {"b": 3, "a": 4}], "outputs": ["raw", "prediction"]},
        {"id": "r11", "model_id": "sum", "input_data": [[1.0, 2.0], [3.0]]},
        {"id": "r12", "model_id": "sum", "input_data": [{"a": 1, "b": 2}, {"a": 1, "c": 2}]},
        {"id": "r13", "model_id": "sum", "input_data": [[1.0, 2.0], {"a": 1, "b": 2}]},
        {"id": "r14", "model_id": "sum", "input_data": [[]]},
        {"id": "r15", "model_id": "sum", "input_data": [[1.0, 2.0]] * 5},
        {"id": "r16", "model_id": "sum", "input_data": [[1.0, "x"], [1.0, 2.0]]},
        {"id": "r17", "model_id": "sum", "input_data": [1.0, 2.0], "outputs": []},
        {"id": "r18", "model_id": "sum", "input_data": [1.0, 2.0], "outputs": ["none"]},
        {"id": "r19", "model_id": "sum", "input_data": [1.0, 2.0], "outputs": ["raw", "raw"]},
        {"id": "r20", "model_id": "sum", "input_data": [[1.0, 2.0]], "outputs": [3]},
        {"id": "r21", "model_id": "sum:2", "input_data": [[1.0, 2.0]] * 5},
    ]
    values = [pack(encoding, **body) for body in bodies]
    records = [Fetched(value, offset, headers=headers) for offset, value in enumerate([*values, None, b"", b"\x00"])]
    apart = [Fetched(values[n], n, headers=(*headers, ("row-errors", b"true"))) for n in (9, 11, 16)]
    limits = Limits(rows_max=4)
    fast, typed = (score(scorer, [*records, *apart]) for scorer in both(catalog_of(sum_model(1), sum_model(2)), limits))
    assert list(fast.values) == list(typed.values)
    assert fast.failures.keys() == typed.failures.keys()
    assert b"errors" in fast.values[-1]
    assert len(records) + 2 not in fast.failures


def test_few_requests_are_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnvelopeKernel, "read", None)
    values = [pack("msgpack", id="r", model_id="sum", input_data=[1.0, 2.0])] * (Scorer.kernel_min - 1)
    assert len(score(Scorer(catalog_of(sum_model(1)), Limits()), values).values) == len(values)
    with pytest.raises(TypeError):
        score(KernelScorer(catalog_of(sum_model(1)), Limits()), values)
