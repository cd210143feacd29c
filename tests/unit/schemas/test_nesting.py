"""The error code for nesting depends only on the bytes: not on Python's recursion limit, nor on the position of the
nesting."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.http.routes.jobs import submission
from inferd.daemon.http.routes.jobs_upload import LinePacker
from inferd.schemas.codec import decode_job_message, decode_request, decode_result
from inferd.schemas.codecs import JSON, MSGPACK, NESTING_MAX, Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference.user_code import plain_value

# No version of Python raises RecursionError at the first of these depths, and every version does at the last.
DEPTHS = (100, 1_500, 12_000)
WIDE = 50_001
"""More values than are checked one by one."""


def deep(depth: int, codec: Codec) -> bytes:
    return b"\x91" * depth + b"\xc0" if codec is MSGPACK else b"[" * depth + b"]" * depth


def wide(depth: int, codec: Codec) -> bytes:
    """An array of `WIDE` empty arrays, behind which `depth` more of them nest."""
    if codec is MSGPACK:
        return b"\xdd" + (WIDE + 1).to_bytes(4, "big") + b"\x90" * WIDE + deep(depth, codec)
    return b"[" + b"[]," * WIDE + deep(depth, codec) + b"]"


def whole(codec: Codec, **fields: Any) -> bytes:
    """A map of these fields; bytes are the value itself."""
    given = {name: msgspec.Raw(v) if isinstance(v, bytes) else v for name, v in fields.items()}
    return msgspec.msgpack.encode(given) if codec is MSGPACK else msgspec.json.encode(given)


def request(codec: Codec, **fields: Any) -> bytes:
    return whole(codec, **{"model_id": "m", "input_data": [1.5], **fields})


def tensor(codec: Codec, **fields: Any) -> bytes:
    return whole(codec, **{"dtype": "<f4", "shape": [1, 1], "data": "AAAAAA==", **fields})


NAMED = {f"f{n}": 1 for n in range(WIDE)}
REQUESTS: dict[str, Any] = {
    "rows": lambda d, e: request(e, input_data=wide(d, e)),
    "a named row": lambda d, e: request(e, input_data=whole(e, **NAMED, last=deep(d, e))),
    "a tensor's shape": lambda d, e: request(e, input_data=tensor(e, shape=deep(d, e))),
    "a tensor's data": lambda d, e: request(e, input_data=tensor(e, dtype="none", data=wide(d, e))),
    "before outputs, too many of them": lambda d, e: request(e, input_data=deep(d, e), outputs=["raw"] * 9),
    "before a bad id": lambda d, e: request(e, input_data=wide(d, e), id="/"),
    "an unknown field": lambda d, e: request(e, x=wide(d, e)),
    "behind an unknown field": lambda d, e: request(e, x=1, y=wide(d, e)),
    "no request at all": wide,
}
RESULT = {"id": "a", "model_id": "m", "version": 1, "digest": "d", "prediction": 1.0}
OTHERS: dict[str, Any] = {
    "a result": lambda d, e: decode_result(whole(e, **RESULT | {"prediction": deep(d, e)}), e),
    "a result without an id": lambda d, e: decode_result(whole(e, model_id="m", prediction=wide(d, e)), e),
    "a job without a model": lambda d, e: decode_job_message(
        whole(e, type="submit", input_batch=wide(d, e)), e, DEFAULT_LIMITS
    ),
    "a job with a wrong id over HTTP": lambda d, e: submission(whole(e, job_id=1, input_batch=wide(d, e)), e),
}
BEYOND_ALL: dict[str, Any] = {
    "a later version's field of a result": lambda d, e: decode_result(whole(e, **RESULT, later=wide(d, e)), e),
    "rows of a job": lambda d, e: decode_job_message(
        whole(e, type="rows", seq=0, input_batch=wide(d, e)), e, DEFAULT_LIMITS
    ),
    "lines over HTTP": lambda d, _: [*packer_of(deep(d, JSON)).finish()],
}
CODECS: tuple[Codec, ...] = (MSGPACK, JSON)


def packer_of(line: bytes) -> LinePacker:
    packer = LinePacker(DEFAULT_LIMITS)
    assert not [*packer.add(line)]
    return packer


def code_of(decode: Any, *arguments: Any) -> str:
    with pytest.raises(InferenceError) as caught:
        decode(*arguments)
    return caught.value.code


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_too_deep_wherever_the_depth_is(name: str, codec: Codec) -> None:
    values = [REQUESTS[name](depth, codec) for depth in DEPTHS]
    assert {code_of(decode_request, value, codec, DEFAULT_LIMITS) for value in values} == {"too_deep"}


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_record_is_too_deep_as_well(name: str, codec: Codec) -> None:
    assert {code_of(OTHERS[name], depth, codec) for depth in DEPTHS} == {"too_deep"}


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", BEYOND_ALL)
def test_fields_that_are_decoded_later_or_never_are_bounded_as_well(name: str, codec: Codec) -> None:
    for depth in DEPTHS:
        if depth <= NESTING_MAX:
            BEYOND_ALL[name](depth, codec)
        else:
            assert code_of(BEYOND_ALL[name], depth, codec) == "too_deep", depth


@pytest.mark.parametrize("depth", DEPTHS[:-1])
def test_the_value_of_a_predictor_has_the_same_bounds(depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    if depth <= NESTING_MAX:
        assert plain_value(value) == value
    else:
        assert code_of(plain_value, value) == "internal"


def test_bytes_that_end_or_break_before_the_depth_are_malformed() -> None:
    for raw in (b"\x93\xc0\xc1" + deep(5_000, MSGPACK), b"\x93\xc0\xdb\xff\xff\xff\xff" + deep(5_000, MSGPACK)):
        assert not MSGPACK.nested_deeper(raw, 16)
        assert code_of(decode_request, request(MSGPACK, input_data=raw), MSGPACK, DEFAULT_LIMITS) == "malformed"


VALUES = st.recursive(
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet='a[]{}"\\:,', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a[{"\\', max_size=4), inner),
    max_leaves=25,
)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(VALUES)
def test_depth_is_that_of_the_value(value: object) -> None:
    for levels in range(depth_of(value) + 2):
        deeper = depth_of(value) > levels
        assert MSGPACK.nested_deeper(msgspec.msgpack.encode(value), levels) == deeper
        assert JSON.nested_deeper(msgspec.json.encode(value), levels) == deeper


@given(st.binary(max_size=64), st.integers(0, 20))
def test_any_bytes_have_an_answer(data: bytes, levels: int) -> None:
    assert MSGPACK.nested_deeper(data, levels) in (True, False)
    assert JSON.nested_deeper(data, levels) in (True, False)


def test_msgpack_skips_at_most_1024_levels() -> None:
    # A constant of the package's C code: this fails when a version changes it.
    for depth, fits in ((1_024, True), (1_025, False)):
        unpacker = msgpack.Unpacker()
        unpacker.feed(deep(depth, MSGPACK))
        if fits:
            unpacker.skip()
        else:
            with pytest.raises(msgpack.StackError):
                unpacker.skip()
