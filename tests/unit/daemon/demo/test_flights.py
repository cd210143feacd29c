"""The data of the demo (training set, held-out set, rows), and its checks."""

from __future__ import annotations

import pytest

from inferd.daemon.demo.flights import CATEGORIES, Flights, load_flights
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.outcome import check_counts, show_rejections
from inferd.daemon.demo.traffic import Rejection


@pytest.fixture(scope="module")
def flights() -> Flights:
    pytest.importorskip("pyarrow")
    return load_flights()


def test_held_out_months_are_not_in_the_training_set(flights: Flights) -> None:
    assert (len(flights.train), len(flights.held_out)) == (273_355, 53_991)
    months = {title.split()[1] for title in flights.held_out.titles[:-50]}
    assert months == {"Nov", "Dec"}
    assert not {"Nov", "Dec"} & {title.split()[1] for title in flights.train.titles[:-50]}


def test_categories_are_strings_and_some_values_are_missing(flights: Flights) -> None:
    rows = flights.held_out.head(500).rows()
    names = list(flights.held_out.features.columns)
    assert {type(row[names.index(name)]) for row in rows for name in CATEGORIES} == {str}
    assert any(value is None for row in rows for value in row)
    assert {type(value) for row in rows for value in row} <= {str, int, float, type(None)}


def test_rows_are_in_order_of_departure(flights: Flights) -> None:
    november = [title.split("  ")[0] for title in flights.held_out.titles if " Nov " in title]
    assert november == sorted(november)


def test_a_failed_check_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()
    narrator.check("the sky is blue", True)
    assert narrator.write_checks()
    narrator.check("pigs fly", False)
    assert not narrator.write_checks()
    assert "✗ pigs fly" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("requests", "results", "counters"),
    [(100, 99, (100, 95, 5, 0)), (100, 100, (100, 95, 4, 0)), (100, 100, (99, 95, 4, 0)), (100, 100, (100, 90, 5, 5))],
)
def test_a_missing_result_fails_the_demo(requests: int, results: int, counters: tuple[int, int, int, int]) -> None:
    received, predicted, errors, pending = counters
    tenant = {"requests_in": received, "results": predicted, "errors": {"malformed": errors}, "pending": pending}
    narrator = Narrator()
    check_counts(narrator, {"requests": requests, "results": results, "dead-letters": 1}, {"tenants": [tenant]})
    assert narrator.write_checks() is (requests == results and received == predicted + errors + pending == requests)


def test_an_unexpected_error_code_fails_the_demo() -> None:
    narrator = Narrator()
    show_rejections(narrator, [Rejection("a [weird] one", "malformed", "internal", "no")])
    assert not narrator.write_checks()
