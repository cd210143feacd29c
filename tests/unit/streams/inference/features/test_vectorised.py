"""The vectorised decoder and the typed decoder agree on every message."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferd.schemas.errors import InferenceError, TooLargeError
from inferd.schemas.requests.request import ID_PATTERN
from inferd.streams.inference import kernels_fault
from inferd.streams.inference.features.vectorised import gather, row_header, valid_ids
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import Fetched, both, catalog_of, score

scorers = both(catalog_of(sum_model()))


def agree(messages: Sequence[bytes | Fetched]) -> list[bytes]:
    fast, typed = (score(scorer, messages) for scorer in scorers)
    assert list(fast.values) == typed.values
    assert {i: (e.code, e.message) for i, e in fast.failures.items()} == {
        i: (e.code, e.message) for i, e in typed.failures.items()
    }
    assert not fast.faults
    assert not typed.faults
    return list(fast.values)


floats = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, None, True, "x", b"\xcb" * 9, [1.0], {"a": 1.0}]),
)
rows = st.one_of(
    st.lists(st.floats(), min_size=2, max_size=2),
    st.lists(floats, max_size=4),
    st.lists(st.lists(floats, max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), floats, max_size=3),
)
requests = st.fixed_dictionaries(
    {"model_id": st.sampled_from(["sum", "sum:1", "sum:2", "sum@champion", "none", "../x", ""]), "input_data": rows},
    optional={
        "id": st.one_of(st.text(max_size=70), st.from_regex(ID_PATTERN, fullmatch=True), st.integers(-5, 5)),
        "outputs": st.lists(st.sampled_from(["prediction", "raw", "leaves", "x"]), max_size=3),
        "extra": st.none(),
    },
)


@settings(max_examples=300)
@example([{"model_id": "sum", "input_data": [0.0, 0.0], "outputs": []}])
@given(st.lists(requests, min_size=1, max_size=6))
def test_both_decoders_agree_on_any_request(batch: list[Any]) -> None:
    agree([msgpack.packb(request) for request in batch])


@settings(max_examples=400)
@given(st.data())
def test_both_decoders_agree_on_mutated_messages(data: st.DataObject) -> None:
    good = [
        msgpack.packb({"id": f"r{n}", "model_id": "sum", "input_data": [float(n), 1.0]})
        for n in range(data.draw(st.integers(1, 5)))
    ]
    mutants = []
    for message in good:
        mutant = bytearray(message)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, max(0, len(mutant) - 1)))
            kind = data.draw(st.sampled_from(["set", "insert", "delete", "cut"]))
            byte = data.draw(st.integers(0, 255))
            if kind == "set" and mutant:
                mutant[at] = byte
            elif kind == "insert":
                mutant.insert(at, byte)
            elif kind == "delete":
                del mutant[at : at + 1]
            else:
                del mutant[at:]
        mutants.append(bytes(mutant))
    values = agree(good + mutants)
    # The untouched neighbours are answered as ever.
    for n in range(len(good)):
        assert msgspec.msgpack.decode(values[n])["prediction"] == n + 1.0


@settings(max_examples=300)
@given(st.lists(requests, min_size=1, max_size=6))
def test_both_decoders_agree_on_any_request_in_json(batch: list[Any]) -> None:
    agree([in_json(json.dumps(request, default=str).encode()) for request in batch])


def in_json(value: bytes) -> Fetched:
    return Fetched(value, headers=(("content-type", b"application/json"), ("correlation-id", b"c")))


@pytest.mark.parametrize(
    "value",
    [
        b'{"model_id":"sum","model_id":"sum","input_data":{"a":1,"b":2}}',
        b'{"model_id":"sum","input_data":{"a":1,"b":2},"input_data":{"a":1,"b":2}}',
        b'{"model_id":"sum","input_data":{"a":1,"b":2},"id":"a:b","\\u0069d":"c"}',
        b'{"model_\\u0069d":"sum","input_data":{"a":1,"b":2}}',
        b'{"model_id":"sum","input_data":{"a":1,"b":2}} ',
        b'{"model_id":"sum","input_data":{"a":1,"b":2}}x',
        b'\xef\xbb\xbf{"model_id":"sum","input_data":{"a":1,"b":2}}',
        b'{"model_id":"sum","input_data": {"a" :1 ,"b":2 } , "id" : "x"}',
        b'{"id":"x:y","model_id":"sum:1","outputs":["raw"],"input_data":[1,2]}',
    ],
)
def test_both_decoders_agree_on_unusual_json(value: bytes) -> None:
    agree([in_json(value)])


@dataclass
class Rejected(Fetched):
    rejection: InferenceError | None = None


def test_a_record_that_was_rejected_while_fetching_is_not_scored() -> None:
    value = msgpack.packb({"id": "r", "model_id": "sum", "input_data": [1.0, 2.0]})
    (answer,) = agree([Rejected(value, rejection=TooLargeError("record: it has too many headers"))])
    assert msgspec.msgpack.decode(answer)["error"]["code"] == "too_large"


def test_an_invalid_id_does_not_hold_up_other_requests() -> None:
    runtime = SumRuntime()
    fast, _ = both(catalog_of(sum_model(runtime=runtime)))
    ids = ["a", "b", "not an id", "", "x" * 65, "c"]
    values = [msgpack.packb({"id": each, "model_id": "sum", "input_data": [n, 2.0]}) for n, each in enumerate(ids)]
    assert sorted(score(fast, values).failures) == [2, 3, 4]
    assert runtime.calls == [3]
    agree(values)


def test_usual_json_is_predicted_in_one_call() -> None:
    if (fault := kernels_fault()) is not None:
        pytest.skip(f"compiled kernels: {fault}")
    runtime = SumRuntime()
    fast, _ = both(catalog_of(sum_model(runtime=runtime)))
    bodies: list[dict[str, Any]] = [
        {"id": f"r:{n}", "model_id": "sum", "input_data": {"a": n, "b": 0.5}} for n in range(40)
    ]
    outcome = score(fast, [in_json(json.dumps(body).encode()) for body in bodies])
    assert runtime.calls == [40]
    assert [msgspec.json.decode(value)["prediction"] for value in outcome.values] == [n + 0.5 for n in range(40)]
    assert all(headers.propagated == (("correlation-id", b"c"),) for headers in outcome.headers.values())


def test_single_bytes_of_every_value_agree_at_every_offset() -> None:
    message = msgpack.packb({"id": "r", "model_id": "sum", "input_data": [1.0, 2.0]})
    mutants = [message[:at] + bytes([byte]) + message[at + 1 :] for at in range(len(message)) for byte in range(256)]
    agree(mutants)


@pytest.mark.parametrize("n_features", [1, 15, 16, 300])
def test_gather_reads_what_struct_wrote(n_features: int) -> None:
    values = np.random.default_rng(0).normal(size=(7, n_features))
    rows = [row_header(n_features) + b"".join(b"\xcb" + struct.pack(">d", v) for v in row) for row in values]
    matrix, fits = gather(rows, n_features)
    assert fits.all()
    assert matrix.tobytes() == values.tobytes()


def test_gather_reports_the_rows_that_it_skipped() -> None:
    good = msgpack.packb([1.0, 2.0])
    odd = [msgpack.packb([1.0]), msgpack.packb([1, 2.0]), msgpack.packb([1.0, 2.0, 3.0]), msgpack.packb({"a": 1})]
    # Of the right length, but not two float64: the second marker is missing.
    odd.append(b"\x92\xcb" + b"\0" * 17)
    matrix, fits = gather([good, *odd, good], 2)
    assert fits.tolist() == [True, False, False, False, False, False, True]
    assert matrix.tolist() == [[1.0, 2.0]] * 2


def test_values_that_align_over_message_borders_are_not_taken_for_rows() -> None:
    short, long = b"\x92\xcb" + b"\0" * 8 + b"\x01", b"\x92" + b"\xcb" + b"\1" * 26
    assert len(short) + len(long) == 2 * 19 + 1
    matrix, fits = gather([short, long], 2)
    assert not fits.any()
    assert matrix.shape == (0, 2)


@given(st.lists(st.one_of(st.text(max_size=70), st.from_regex(ID_PATTERN, fullmatch=True)), max_size=5))
def test_valid_ids_agrees_with_the_grammar(ids: list[str]) -> None:
    import re

    assert valid_ids(ids, 64) == all(re.fullmatch(ID_PATTERN, id_, re.ASCII) for id_ in ids)


def test_usual_requests_are_predicted_in_one_call() -> None:
    runtime = SumRuntime()
    fast, _ = both(catalog_of(sum_model(runtime=runtime)))
    outcome = score(
        fast, [msgpack.packb({"id": f"r{n}", "model_id": "sum", "input_data": [n, 0.5]}) for n in range(50)]
        + [msgpack.packb({"model_id": "sum", "input_data": [float(n), 1.5]}) for n in range(50)],
    )  # fmt: skip
    assert runtime.calls == [100]
    assert not outcome.failures
    assert msgspec.msgpack.decode(outcome.values[99])["id"] == "0-99"
