"""Display of the values of rejected records, which may contain any bytes."""

from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.value_view import BYTES_SHOWN_MAX, view_of


def test_json_is_indented() -> None:
    view = view_of(b'{"model_id":"x","n":1}')
    assert (view.format, view.value) == ("json", {"model_id": "x", "n": 1})
    assert view.lines == ("{", '  "model_id": "x",', '  "n": 1', "}")


def test_msgpack_is_shown_as_json() -> None:
    view = view_of(msgpack.packb({"model_id": "x", "rows": [[1.5, None]]}))
    assert (view.format, view.value) == ("msgpack", {"model_id": "x", "rows": [[1.5, None]]})
    assert json.loads("\n".join(view.lines)) == view.value


@pytest.mark.parametrize("data", [b"\xc1", b"\x81\xa8model", b"\xff\xfe\x00 binary", b'{"a":'])
def test_other_bytes_are_shown_in_hexadecimal(data: bytes) -> None:
    view = view_of(data)
    assert (view.format, view.value) == ("binary", None)
    assert bytes.fromhex(view.lines[0][10:58]) == data[:16]


@pytest.mark.parametrize("data", [None, b""])
def test_an_empty_value(data: bytes | None) -> None:
    assert view_of(data).format == "empty"
    assert view_of(data).lines == ()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"\x91" * 100_000,
        b"\x91" * 500 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
    ids=["deep-json", "deep-msgpack", "deep-whole", "claimed-4g", "timestamp"],
)
def test_any_value_can_be_shown(data: bytes) -> None:
    assert len(view_of(data).lines) < 1_000


@pytest.mark.parametrize("data", [b"\xc1" * 100_000, json.dumps(list(range(50_000))).encode(), b"\xc1" * 3_000_000])
def test_long_values_are_truncated_visibly(data: bytes) -> None:
    lines = view_of(data).lines
    assert sum(map(len, lines)) < 8 * BYTES_SHOWN_MAX
    assert "--raw" in lines[-1]


@given(st.binary(max_size=300))
def test_any_bytes_have_a_view(data: bytes) -> None:
    view = view_of(data)
    assert view.lines or not data
    if view.format == "binary":
        assert bytes.fromhex("".join(line[10:58] for line in view.lines)) == data
