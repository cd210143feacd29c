"""Grouping rows into requests, and splitting results into outcomes of rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.cli.predict.row_batches import Outcome, batches, outcomes_in_order
from inferd.schemas.errors import InferenceError, MalformedError, SchemaMismatchError
from inferd.schemas.requests.result import Failure, Prediction, Result, RowError

UNREADABLE = MalformedError("line 3: no row")


async def stream(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class Model:
    """Doubles the first value of each row; rejects requests with a negative one. Records its input."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def predict_many(self, requests: AsyncIterator[Any]) -> AsyncIterator[Result]:
        async for input_data in requests:
            self.requests.append(input_data)
            rows = input_data if isinstance(input_data[0], list) else [input_data]
            if any(row[0] < 0 for row in rows):
                yield Failure("1", "m", "invalid_value", "negative", False)
                continue
            values = [2 * row[0] for row in rows]
            single = not isinstance(input_data[0], list)
            yield Prediction("1", "m", 3, "0" * 64, {"prediction": values[0] if single else values})


async def outcomes(rows: list[Any], batch_rows: int) -> tuple[list[Outcome], list[Any]]:
    model = Model()
    got = [outcome async for outcome in outcomes_in_order(model.predict_many, stream(rows), batch_rows)]
    return got, model.requests


def value_or_code(outcome: Outcome) -> object:
    return outcome.error.code if outcome.error else outcome.values["prediction"]


async def test_each_row_is_one_request() -> None:
    got, requests = await outcomes([[1], [-2], [3]], 1)
    assert requests == [[1], [-2], [3]]
    assert [(outcome.row, value_or_code(outcome), outcome.version) for outcome in got] == [
        (0, 2, 3),
        (1, "invalid_value", None),
        (2, 6, 3),
    ]


async def test_rows_are_batched() -> None:
    got, requests = await outcomes([[1], [2], [3], [4], [5]], 2)
    assert requests == [[[1], [2]], [[3], [4]], [5]]
    assert [value_or_code(outcome) for outcome in got] == [2, 4, 6, 8, 10]


async def test_a_bad_row_fails_only_its_request() -> None:
    got, _ = await outcomes([[1], [2], [-3], [4], [5]], 2)
    assert [value_or_code(outcome) for outcome in got] == [2, 4, "invalid_value", "invalid_value", 10]


async def _failing(requests: AsyncIterator[Any]) -> AsyncIterator[Result]:
    async for rows in requests:
        if len(rows) == 3:
            errors = [RowError(1, "schema_mismatch", "input_data: row 1, feature 'row 1' is not a number")]
            yield Prediction("1", "m", 3, "0" * 64, {"prediction": [1, None, 1]}, errors)
        else:
            yield Failure("1", "m", "schema_mismatch", "row 1 has 2 features, and row 0 has 3; it's row 1", False)


async def test_messages_number_the_rows_as_the_file_does() -> None:
    rows = [[number] for number in range(8)]
    got = [outcome async for outcome in outcomes_in_order(_failing, stream(rows), 3)]
    messages = {outcome.row: outcome.error.message for outcome in got if outcome.error is not None}
    assert messages == {
        1: "input_data: row 1, feature 'row 1' is not a number",
        4: "input_data: row 4, feature 'row 1' is not a number",
        6: "row 7 has 2 features, and row 6 has 3; it's row 7",
        7: "row 7 has 2 features, and row 6 has 3; it's row 7",
    }
    assert {type(outcome.error) for outcome in got if outcome.error is not None} == {SchemaMismatchError}


async def test_no_rows() -> None:
    assert await outcomes([], 3) == ([], [])


@given(
    st.lists(st.integers(-3, 100).map(lambda n: [n]) | st.just(UNREADABLE), max_size=30),
    st.integers(1, 5),
)
async def test_every_row_has_one_outcome_at_its_index(rows: list[Any], batch_rows: int) -> None:
    got, _ = await outcomes(rows, batch_rows)
    assert [outcome.row for outcome in got] == list(range(len(rows)))
    for row, outcome in zip(rows, got, strict=True):
        if isinstance(row, InferenceError):
            assert outcome.error is row
        elif outcome.error is None:
            assert outcome.values == {"prediction": 2 * row[0]}
        else:
            assert batch_rows > 1 or row[0] < 0


async def test_batches_keep_the_number_of_their_first_row() -> None:
    rows = [[1], UNREADABLE, [2], [3], [4]]
    got = [(batch.first, batch.rows, batch.error) async for batch in batches(stream(rows), 2)]
    assert got == [(0, [[1]], None), (1, [], UNREADABLE), (2, [[2], [3]], None), (4, [[4]], None)]
