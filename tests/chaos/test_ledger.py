"""The ledger detects every kind of difference between inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import pytest

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs import ChunkResult, encode_chunk_result
from tests.chaos.jobs import Job, JobRows
from tests.chaos.kinds import Kind, Request, Rows
from tests.chaos.ledger import Balance, Input, Ledger, Place

PLACE, ELSEWHERE = Place("default", 0), Place("default", 1)
ROWS: Kind = Rows("demo", {"d1": [0.1, 0.2, 0.3], "d2": [1.1, 1.2, 1.3]}, [[1.0], [2.0], [3.0]])


class Letters:
    """Requests whose answer is an error, with a dead letter for each."""

    share = 1.0

    def choose(self, _rng: object) -> int:
        return 0

    def request(self, _choice: int) -> Request:
        return Request(b"bad", [])

    def fault(self, _choice: int, answer: Mapping[str, Any]) -> str | None:
        return None if "error" in answer else "no error"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("digest", ""))

    def letter(self, choice: int) -> Request:
        return self.request(choice)


def answer(row: int, digest: str = "d1", **more: Any) -> bytes:
    value = {"d1": 0, "d2": 1}[digest] + (row + 1) / 10
    return bytes(msgpack.packb({"digest": digest, "prediction": value, **more}))


ERROR = bytes(msgpack.packb({"error": {"code": "malformed"}}))


def ledger_of(count: int = 3, kind: Kind = ROWS) -> Ledger:
    ledger = Ledger()
    for n in range(count):
        ledger.sent(b"r%d" % n, Input(PLACE, kind, n if kind is ROWS else 0))
        ledger.acknowledged(b"r%d" % n, 10 * n)
    return ledger


def counts(balance: Balance) -> dict[str, int]:
    """The names of all failures."""
    names = ("lost", "repeated", "different", "out_of_order", "wrong", "uninvited", "letters_lost", "letters_repeated")
    return {name: count for name in names if (count := getattr(balance, name))}


@pytest.mark.parametrize("answered", [(0, 2, 1), ()])
def test_an_input_of_unknown_offset_is_counted(answered: Sequence[int]) -> None:
    """For a record that was sent again, the broker may only report a duplicate."""
    ledger = ledger_of(2)
    ledger.sent(b"r2", Input(PLACE, ROWS, 2))
    ledger.acknowledged(b"r2", None)
    ledger.gap(PLACE, range(100, 200))
    for n in answered:
        ledger.result(PLACE, b"r%d" % n, answer(n))
    assert counts(ledger.balance()) == ({} if answered else {"lost": 3})


def test_one_right_answer_per_request_is_balanced() -> None:
    ledger = ledger_of()
    assert ledger.pending == 3
    for n in range(3):
        ledger.result(PLACE, b"r%d" % n, answer(n))
    assert (ledger.pending, ledger.missing()) == (0, [])
    assert counts(ledger.balance()) == {}
    assert ledger.balance().violations("exactly_once") == []


def test_inputs_without_an_answer_are_lost_unless_a_gap_was_reported() -> None:
    ledger = ledger_of()
    ledger.result(PLACE, b"r1", answer(1))
    ledger.gap(PLACE, range(15, 30))
    assert ledger.missing() == [b"r0"]
    assert (ledger.unanswered({PLACE: range(15, 30)}), ledger.unanswered({ELSEWHERE: range(30)})) == (1, 0)
    balance = ledger.balance()
    assert (counts(balance), balance.in_named_gaps) == ({"lost": 1}, 1)


def test_repeats_are_allowed_at_least_once_and_with_the_same_bytes() -> None:
    ledger = ledger_of(1)
    for _ in range(3):
        ledger.result(PLACE, b"r0", answer(0))
    balance = ledger.balance()
    assert counts(balance) == {"repeated": 2}
    assert balance.violations("at_least_once") == []
    assert len(balance.violations("exactly_once")) == 1


@pytest.mark.parametrize(("answers", "repeated"), [(1, 0), (2, 0), (3, 1)])
def test_a_request_that_its_producer_wrote_twice_requires_two_answers(answers: int, repeated: int) -> None:
    ledger = ledger_of(2)
    for key, offset in ((b"r0", 0), (b"r0", 0), (b"r1", 10), (b"r0", 20)):
        ledger.request(key, offset)
    ledger.result(PLACE, b"r0", answer(0))
    ledger.result(PLACE, b"r1", answer(1))
    for _ in range(answers - 1):
        ledger.result(PLACE, b"r0", answer(0))
    balance = ledger.balance()
    assert counts(balance) == ({"repeated": repeated} if repeated else {})
    assert balance.sent_twice == 1


def test_an_unacknowledged_request_in_the_topic_requires_an_answer() -> None:
    ledger = ledger_of(1)
    ledger.result(PLACE, b"r0", answer(0))
    for key in (b"held", b"unknown"):
        ledger.sent(key, Input(PLACE, ROWS, 0))
        ledger.uncertain(key)
    ledger.request(b"held", 20)
    assert ledger.missing() == [b"held"]
    assert (counts(ledger.balance()), ledger.balance().uncertain) == ({"lost": 1}, 1)


def test_repeats_with_other_bytes_are_distinguished_from_other_versions() -> None:
    ledger = ledger_of(1)
    ledger.result(PLACE, b"r0", answer(0))
    ledger.result(PLACE, b"r0", answer(0, "d2"))
    assert "different" not in counts(ledger.balance())
    ledger.result(PLACE, b"r0", answer(0, id="other"))
    assert counts(ledger.balance())["different"] == 1


def test_the_order_of_first_answers_is_that_of_the_inputs() -> None:
    ledger = ledger_of()
    for n in (0, 2, 0, 1):
        ledger.result(PLACE, b"r%d" % n, answer(n))
    assert counts(ledger.balance()) == {"repeated": 1, "out_of_order": 1}


@pytest.mark.parametrize(
    ("place", "value"),
    [(PLACE, answer(1)), (ELSEWHERE, answer(0)), (PLACE, ERROR), (PLACE, answer(0).replace(b"d1", b"d3"))],
)
def test_wrong_answers_are_counted(place: Place, value: bytes) -> None:
    ledger = ledger_of(1)
    ledger.result(place, b"r0", value)
    assert counts(ledger.balance()) == {"wrong": 1}


def test_answers_to_aborted_or_unknown_inputs_are_uninvited() -> None:
    ledger = ledger_of(2)
    ledger.aborted([b"r1"])
    ledger.uncertain(b"r1")
    for n in range(2):
        ledger.result(PLACE, b"r%d" % n, answer(n))
    ledger.result(PLACE, b"unsent", answer(0))
    ledger.letter(PLACE, b"r0", b"x")
    ledger.request(b"unsent", 30)
    assert counts(ledger.balance()) == {"uninvited": 4}


def test_poison_needs_its_dead_letter() -> None:
    ledger = ledger_of(3, Letters())
    for n in range(3):
        ledger.result(PLACE, b"r%d" % n, ERROR)
    assert len(ledger.missing()) == 3
    for _ in range(2):
        ledger.letter(PLACE, b"r0", b"bad")
    ledger.letter(PLACE, b"r1", b"changed")
    assert counts(ledger.balance()) == {"letters_lost": 1, "letters_repeated": 1, "wrong": 1}


JOB = Job("default", "j")


def chunk(number: int, *predictions: float, digest: str = "d1") -> bytes:
    result = ChunkResult("j", number, 2 * number, 0, 1, digest, {"prediction": [*predictions]}, [])
    return encode_chunk_result(result, MSGPACK)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([chunk(0, 0.1, 0.2), chunk(1, 0.1, 0.2)], {}),
        ([chunk(1, 0.1, 0.2)], {"job_rows_lost": 2}),
        ([chunk(0, 0.1, 0.2), chunk(1, 0.1, 0.2), chunk(1, 0.1, 0.2)], {"job_rows_repeated": 2}),
        (
            [chunk(0, 0.1, 0.2), chunk(1, 0.1, 0.2), chunk(1, 0.1, 0.2, digest="d2")],
            {"job_rows_repeated": 2, "job_rows_wrong": 1},
        ),
        ([chunk(0, 0.1, 0.3), chunk(1, 0.1, 0.2)], {"job_rows_wrong": 1}),
        ([chunk(0, 0.1, 0.2), chunk(1, 0.1, 0.2), chunk(2, 0.1, 0.2)], {"job_rows_wrong": 2}),
    ],
)
def test_rows_of_jobs_are_accounted_for(results: Sequence[bytes], expected: Mapping[str, int]) -> None:
    account = JobRows([0.1, 0.2])
    account.sent[JOB] = 4
    for value in results:
        account.result(JOB, value)
    balance = Ledger().balance(account)
    names = ("job_rows_lost", "job_rows_repeated", "job_rows_wrong")
    assert {name: count for name in names if (count := getattr(balance, name))} == expected
    assert len(balance.violations("exactly_once")) == len(expected)
    assert len(balance.violations("at_least_once")) == len(expected.keys() - {"job_rows_repeated"})
