from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas import dead_letters
from inferd.schemas.dead_letters import (
    FIELDS,
    OMITTED,
    OWN_BYTES_MAX,
    PREFIX,
    DeadLetter,
    check_dead_letter_size,
)
from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.record_size import record_bytes
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
def test_original_headers_round_trip_byte_for_byte(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    letter = DeadLetter("malformed", "why", "t", 0, 5, -1, "w", b"k", None, headers)
    assert DeadLetter.parse(b"k", None, letter.headers()) == letter


def test_a_dead_letter_that_was_redriven_and_rejected_again() -> None:
    again = DeadLetter("too_deep", "why", "t", 1, 2, 3, "w", DEAD_LETTER.key, DEAD_LETTER.value, DEAD_LETTER.headers())
    parsed = DeadLetter.parse(again.key, again.value, again.headers())
    assert parsed == again
    assert DeadLetter.parse(parsed.key, parsed.value, parsed.original_headers) == DEAD_LETTER


def test_headers_appended_by_a_proxy_are_original() -> None:
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
def test_an_invalid_header_is_named(field: str, value: bytes) -> None:
    letter = DeadLetter("malformed", "why", "t", 1, 2, 3, "w")
    headers = [(name, value if name == PREFIX + field else old) for name, old in letter.headers()]
    with pytest.raises(MalformedError, match=PREFIX + field):
        DeadLetter.parse(None, None, headers)


def test_a_message_that_utf8_cannot_spell_is_escaped() -> None:
    letter = DeadLetter("malformed", "\ud800", "t", 1, 2, 3, "w")
    assert dict(letter.headers())["inferd-error-message"] == b"\\ud800"


# ---------------------------------------------------------------------- records that are too large to be kept whole

BIG = b"\x00\xff" * 5_000


def size_of(letter: DeadLetter) -> int:
    return record_bytes(letter.key, letter.value, letter.headers())


@pytest.mark.parametrize(
    ("changes", "part", "size"),
    [
        ({"value": BIG}, "value", len(BIG)),
        ({"key": BIG}, "key", len(BIG)),
        ({"original_headers": (("a", b"1"), ("big", BIG), ("b", None))}, "header big", len(BIG) + 3),
        ({"original_headers": (("n" * 10_000, b""),)}, "header " + "n" * 80, 10_000),
    ],
)
def test_the_largest_part_is_omitted_with_its_size_and_digest(changes: dict[str, Any], part: str, size: int) -> None:
    whole = replace(DEAD_LETTER, **changes)
    kept = whole.trimmed(4_000)
    assert size_of(kept) <= 4_000 < size_of(whole)
    (omitted,) = kept.omitted
    assert (omitted.part, omitted.bytes) == (part, size)
    if part == "value":
        assert omitted.sha256 == sha256(BIG).hexdigest()
    for name in ("key", "value"):
        assert getattr(kept, name) == (None if part == name else getattr(whole, name))
    assert set(kept.original_headers) <= set(whole.original_headers)
    assert kept.headers()[-1][0] == OMITTED
    assert DeadLetter.parse(kept.key, kept.value, kept.headers()) == kept


def test_records_that_fit_are_copied_completely() -> None:
    assert DEAD_LETTER.trimmed(size_of(DEAD_LETTER)) == DEAD_LETTER
    assert DEAD_LETTER.trimmed(size_of(DEAD_LETTER) - 1) != DEAD_LETTER


@given(
    st.one_of(st.none(), st.binary(max_size=3_000)),
    st.one_of(st.none(), st.binary(max_size=3_000)),
    st.lists(st.tuples(st.text(max_size=100), st.one_of(st.none(), st.binary(max_size=1_000))), max_size=40),
)
def test_any_record_fits_and_its_missing_parts_are_listed(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = DeadLetter("malformed", "why", "t", 0, 5, -1, "w", key, value, tuple(headers)).trimmed(8_000)
    assert size_of(letter) <= 8_000
    assert DeadLetter.parse(letter.key, letter.value, letter.headers()) == letter
    missing = {omitted.part for omitted in letter.omitted}
    assert letter.value == value or "value" in missing
    assert letter.key == key or "key" in missing
    assert len(letter.original_headers) == len(headers) or any(part.startswith("header") for part in missing)


def test_very_many_headers_are_omitted_together() -> None:
    headers = tuple((f"h{n}", b"x" * 50) for n in range(100_000))
    letter = replace(DEAD_LETTER, original_headers=headers).trimmed(20_000)
    assert letter.omitted[-1].part == "headers"
    assert (letter.value, letter.key, letter.original_headers) == (DEAD_LETTER.value, DEAD_LETTER.key, ())


def test_empty_headers_are_omitted_last() -> None:
    letter = DeadLetter("malformed", "why", "t", 1, 2, 3, "w", original_headers=(("", None),) * 5_000).trimmed(4_000)
    assert [(part.part, part.bytes) for part in letter.omitted] == [("headers", 0)]
    assert letter.original_headers == ()


def test_many_headers_are_concatenated_at_most_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    joined = dead_letters._joined

    def counting(headers: Any) -> bytes:
        counted.append(len(headers))
        return joined(headers)

    monkeypatch.setattr(dead_letters, "_joined", counting)
    headers = tuple((f"h{n}", b"") for n in range(50_000))
    assert replace(DEAD_LETTER, original_headers=headers).trimmed(20_000).original_headers == ()
    assert sum(counted) <= 2 * len(headers)


def test_a_shortened_letter_that_was_redriven_and_rejected_again() -> None:
    first = replace(DEAD_LETTER, value=BIG).trimmed(4_000)
    again = DeadLetter("too_deep", "why", "t", 1, 2, 3, "w", first.key, None, first.headers())
    parsed = DeadLetter.parse(again.key, again.value, again.headers())
    assert parsed == again
    assert parsed.omitted == ()


def test_an_invalid_list_of_missing_parts_is_named() -> None:
    with pytest.raises(MalformedError, match=OMITTED):
        DeadLetter.parse(None, None, [*DEAD_LETTER.headers(), (OMITTED, b"[1]")])


@pytest.mark.parametrize("what", ["key", "value", "header"])
def test_a_record_beyond_twice_the_limit_is_too_large_whichever_part_is_large(what: str) -> None:
    limits = Limits(message_bytes_max=10_000)

    def check(size: int) -> None:
        data = bytes(size)
        check_dead_letter_size(
            data if what == "key" else None, data if what == "value" else None,
            [("h", data)] if what == "header" else [], limits,
        )  # fmt: skip

    check(20_000)
    with pytest.raises(TooLargeError, match="key, value and headers"):
        check(limits.dead_letter_bytes_max)


@given(originals)
def test_a_keepable_record_fits_the_topic_whole(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    limits = Limits(message_bytes_max=1_024)
    most = limits.dead_letter_bytes_max - OWN_BYTES_MAX - record_bytes(None, b"", headers)
    check_dead_letter_size(None, bytes(most), headers, limits)
    letter = DeadLetter(
        "x" * 30, "\U0001f600" * 512, "t" * 249, 9_999, 2**63 - 1, 2**63 - 1, "w" * 128, None, bytes(most), headers
    )
    assert letter.trimmed(limits.dead_letter_bytes_max) == letter


def test_the_size_of_a_record_is_at_most_aiokafkas() -> None:
    for key, value, headers in [
        (None, None, []), (b"k", b"v" * 1_000, [("name", b"x"), ("é" * 50, None)]), (b"k" * 70_000, b"", []),
    ]:  # fmt: skip
        batch = BatchBuilder(10, 0)
        assert batch.append(timestamp=2**40, key=key, value=value, headers=headers) is not None
        assert batch.size() <= record_bytes(key, value, headers) <= batch.size() + 40 + 8 * len(headers)
