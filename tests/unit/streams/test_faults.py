"""Errors in one line."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaTimeoutError

from streams.faults import describe


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KafkaTimeoutError(), "KafkaTimeoutError"),
        (KafkaTimeoutError("too late"), "KafkaTimeoutError: too late"),
        (OSError("no route"), "OSError: no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_is_its_type_once_and_what_it_says(error: BaseException, line: str) -> None:
    assert describe(error) == line
