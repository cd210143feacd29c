"""Requests in a block have the results of the same requests in a list."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, SplitShare
from inferd.streams.inference import ModelCatalog, Outcome, Record, Scorer, Version
from tests.fixtures.lane import sum_model
from tests.fixtures.record_blocks import block_of

JSON_TYPE, DEADLINE = ("content-type", b"application/json"), ("deadline", b"5")
KEY_MAX = 16


@dataclass(frozen=True)
class Request:
    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    offset: int = 0
    timestamp: int = 1_000


def body(as_json: bool, model: str, given_id: str | None, row: Any) -> bytes:
    request = {"model_id": model, "input_data": row} | ({} if given_id is None else {"id": given_id})
    return json.dumps(request).encode() if as_json else msgpack.packb(request)


BODIES = st.builds(
    body, st.booleans(), st.sampled_from(["sum", "sum:1", "sum:7", "other"]), st.sampled_from([None, "a", "b c", "d"]),
    st.sampled_from([[1.5, 2.0], {"a": 1.0, "b": 2.0}, [[1.0, 2.0], [3.0, 4.0]], [1.0], "text"]),
)  # fmt: skip
REQUESTS = st.builds(
    Request,
    st.none() | st.just(b"garbage") | BODIES,
    st.sampled_from([None, b"", b"key", b"other", b"k" * KEY_MAX, b"k" * (KEY_MAX + 1)]),
    st.sampled_from(
        [
            (), (), (JSON_TYPE,), (JSON_TYPE,), (("content-type", b"text/plain"),), (("correlation-id", b"7"),),
            (DEADLINE,),
            (JSON_TYPE, ("reply-to", b"elsewhere")), (("content-type", b"application/vnd.oip.v2+json"),),
            (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"), JSON_TYPE),
        ]
    ),
)  # fmt: skip


def scorer() -> Scorer:
    catalog = ModelCatalog()
    for number in (1, 2):
        served = sum_model(number)
        catalog.put(Version(served.manifest, "ready", served=served))
    catalog.put_alias("sum", "champion", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)]))
    return Scorer(catalog, replace(DEFAULT_LIMITS, key_bytes_max=KEY_MAX))


def scored(parts: list[tuple[int, Any]]) -> Outcome:
    batch = scorer().prepare(parts, 10)
    for group in batch.groups:
        group.predict()
    return batch.finish()


ALIKE = st.lists(
    st.builds(
        lambda value, headers, given_id: Request(body(False, "sum:1", given_id, [value, 0.0]), b"key", headers),
        st.floats(-9, 9),
        st.sampled_from([(), (("correlation-id", b"7"),), (("correlation-id", b"8"),)]),
        st.sampled_from(["a", "b", "c:1", None]),
    ),
    min_size=8,
    max_size=24,
)
"""Of one model and codec, so that the kernel reads all together, with different headers in any order."""


@given(st.lists(REQUESTS, min_size=1, max_size=24) | ALIKE, st.integers(0, 24))
def test_a_block_has_the_results_of_a_list(requests: list[Request], first: int) -> None:
    numbered: list[Record] = [replace(request, offset=offset) for offset, request in enumerate(requests)]
    parts = [(3, numbered[:first]), (4, numbered[first:])]
    parts = [part for part in parts if part[1]]
    expected = scored(list(parts))
    found = scored([(number, block_of(records)) for number, records in parts])
    assert list(found.values) == list(expected.values)
    assert found.headers == expected.headers
    assert found.asked == expected.asked
    assert {n: (e.code, str(e)) for n, e in found.failures.items()} == {
        n: (e.code, str(e)) for n, e in expected.failures.items()
    }
