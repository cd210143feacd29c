from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import FIELDS, PREFIX, DeadLetter
from schemas.errors import MalformedError
from tests.unit.schemas.sample_records import DEAD_LETTER

header_names = st.one_of(st.text(max_size=10), st.sampled_from([PREFIX + field for field in (*FIELDS, "other")]))
originals = st.lists(st.tuples(header_names, st.one_of(st.none(), st.binary(max_size=10)))).map(tuple)


def test_headers_are_the_original_ones_and_the_error() -> None:
    assert DEAD_LETTER.headers() == (
        ("content-type", b"application/msgpack"),
        ("x", b"\xff\x00"),
        ("x", None),
        ("inferd-error-code", b"too_deep"),
        ("inferd-error-code", b"malformed"),
        ("inferd-error-message", "request: trailing bytes – at byte 3".encode()),
        ("inferd-error-topic", b"inferd.default.requests"),
        ("inferd-error-partition", b"2"),
        ("inferd-error-offset", b"19"),
        ("inferd-error-timestamp", b"1767322800123"),
        ("inferd-error-worker", b"worker-1"),
    )


@given(originals)
def test_original_headers_come_back_byte_for_byte(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    letter = DeadLetter("malformed", "why", "t", 0, 5, -1, "w", b"k", None, headers)
    assert DeadLetter.parse(b"k", None, letter.headers()) == letter


def test_a_dead_letter_that_was_redriven_and_refused_again() -> None:
    again = DeadLetter("too_deep", "why", "t", 1, 2, 3, "w", DEAD_LETTER.key, DEAD_LETTER.value, DEAD_LETTER.headers())
    parsed = DeadLetter.parse(again.key, again.value, again.headers())
    assert parsed == again
    assert DeadLetter.parse(parsed.key, parsed.value, parsed.original_headers) == DEAD_LETTER


def test_headers_that_a_proxy_added_behind_are_original() -> None:
    parsed = DeadLetter.parse(None, b"v", [*DEAD_LETTER.headers(), ("added", b"1")])
    assert parsed.original_headers == (*DEAD_LETTER.original_headers, ("added", b"1"))
    assert parsed.code == "malformed"


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_header_is_named(field: str) -> None:
    letter = DeadLetter("malformed", "why", "t", 1, 2, 3, "w")
    headers = [header for header in letter.headers() if header[0] != PREFIX + field]
    with pytest.raises(MalformedError, match=f"{PREFIX}{field} is missing"):
        DeadLetter.parse(None, None, headers)


@pytest.mark.parametrize(
    ("field", "value"), [("offset", b"x"), ("partition", b""), ("timestamp", b"1.5"), ("code", b"\xff")]
)
def test_a_header_that_is_not_what_it_must_be_is_named(field: str, value: bytes) -> None:
    letter = DeadLetter("malformed", "why", "t", 1, 2, 3, "w")
    headers = [(name, value if name == PREFIX + field else old) for name, old in letter.headers()]
    with pytest.raises(MalformedError, match=PREFIX + field):
        DeadLetter.parse(None, None, headers)


def test_a_message_that_utf8_cannot_spell_is_escaped() -> None:
    letter = DeadLetter("malformed", "\ud800", "t", 1, 2, 3, "w")
    assert dict(letter.headers())["inferd-error-message"] == b"\\ud800"
