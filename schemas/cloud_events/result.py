"""The attributes of results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.cloud_events.attributes import (
    ERROR_TYPE,
    PREDICTION_TYPE,
    SPEC_VERSION,
    Attribute,
    extensions,
)
from inferd.schemas.codecs import Codec, Decoders

DAY_MS = 86_400_000
YEAR_MAX = 9_999


class Place(msgspec.Struct, frozen=True):
    """Where a request is: what of its result must not depend on who writes it, or when."""

    source: str
    """Who answers, as a URI reference: the same for all workers of a consumer group."""
    topic: str
    partition: int
    offset: int
    timestamp: int
    """Unix milliseconds of the record; -1 if it has none."""

    @property
    def event_id(self) -> str:
        """The id of the result."""
        return f"{self.topic}-{self.partition}-{self.offset}"


class _Outcome(msgspec.Struct):
    model_id: str | None = None
    error: msgspec.Raw | UnsetType = UNSET


_OUTCOME = Decoders(_Outcome)


def result_attributes(
    place: Place, model_id: str | None, asked: Mapping[str, Attribute], *, failed: bool
) -> dict[str, Attribute]:
    """The attributes of a result, without those of its data and the id of its request.

    They are a function of the request, which is at `place` and has the attributes `asked`: `time` is that of its
    record, so that the same request has the same result.
    """
    attributes: dict[str, Attribute] = {
        "specversion": SPEC_VERSION,
        "id": place.event_id,
        "source": place.source,
        "type": ERROR_TYPE if failed else PREDICTION_TYPE,
    }
    if model_id:
        attributes["subject"] = name_of(model_id)
    if (time := rfc3339(place.timestamp)) is not None:
        attributes["time"] = time
    return attributes | extensions(asked)


def attributes_of_result(
    place: Place, result: bytes, codec: Codec, asked: Mapping[str, Attribute]
) -> dict[str, Attribute]:
    """The `result_attributes` for an encoded result of ours."""
    outcome: _Outcome = _OUTCOME[codec](result)
    return result_attributes(place, outcome.model_id, asked, failed=outcome.error is not UNSET)


@cache
def source_of(group: str) -> str:
    """A consumer group as a URI reference: the source of its events."""
    return quote(group, safe="")


def name_of(reference: str) -> str:
    """The name in a model reference."""
    return reference.partition("@")[0].partition(":")[0] or reference


def rfc3339(timestamp_ms: int) -> str | None:
    """A time in Unix milliseconds by RFC 3339, in UTC; None before 1970 and after 9999."""
    days, ms = divmod(timestamp_ms, DAY_MS)
    year, month, day = _date(days)
    if timestamp_ms < 0 or year > YEAR_MAX:
        return None
    seconds, ms = divmod(ms, 1_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


def _date(days: int) -> tuple[int, int, int]:
    """Year, month and day in the Gregorian calendar, `days` after 1970-01-01. The module `datetime` has a clock, which
    scoring must not load.

    Source: H. Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`: years begin in March.
    """
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return era * 400 + year + (month <= 2), month, day
