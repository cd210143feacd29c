"""Guards of a rollout: what the new version must not exceed, such as `errors < 0.5%` or `p99 < 1.5x`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, get_args

import msgspec

from inferd.schemas.errors import InvalidValueError

Metric = Literal["errors", "p50", "p95", "p99", "disagreement", "psi", "auc"]
Unit = Literal["%", "ms", ""]
Relation = Literal["value", "times", "champion"]
METRICS: tuple[Metric, ...] = get_args(Metric)
UNITS: Mapping[Metric, Unit] = {
    "errors": "%",
    "p50": "ms",
    "p95": "ms",
    "p99": "ms",
    "disagreement": "%",
    "psi": "",
    "auc": "",
}
RELATIVE: frozenset[Metric] = frozenset({"errors", "p50", "p95", "p99", "auc"})
"""Metrics that may be compared with the champion's: both versions have them in the same windows."""
AT_LEAST: frozenset[Metric] = frozenset({"auc"})
"""Metrics of which more is better."""
GUARDS_MAX = 16
TEXT_CHARS_MAX = 80
_NUMBER = r"(?P<{}>[0-9]{{1,9}}(\.[0-9]{{1,9}})?)"
_GUARD = re.compile(
    r"(?P<metric>[a-z0-9]+)\s*(?P<sign>[<>])\s*"
    rf"({_NUMBER.format('times')}x|champion\s*(?P<side>[+-])\s*{_NUMBER.format('delta')}(?P<delta_unit>%|ms|s)?"
    rf"|{_NUMBER.format('value')}(?P<unit>%|ms|s)?)",
    re.ASCII,
)
_EXAMPLES = {
    "errors": "errors < 0.5%, errors < 2x or errors < champion + 0.5%",
    "disagreement": "disagreement < 10%",
    "psi": "psi < 0.2",
    "auc": "auc > 0.8 or auc > champion - 0.01",
}


class Guard(msgspec.Struct, frozen=True):
    """A limit of one metric of the new version."""

    metric: Metric
    relation: Relation
    """`value`: the limit is `amount`; `times`: the champion's times `amount`; `champion`: the champion's + `amount`."""
    amount: float
    """Shares are in [0, 1], times in milliseconds."""

    def limit(self, champion: float | None) -> float | None:
        """The limit beside a champion that has this value; None if it depends on the champion's, which is unknown."""
        if self.relation == "value":
            return self.amount
        if champion is None:
            return None
        return champion * self.amount if self.relation == "times" else champion + self.amount

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is within the limit."""
        return value > limit if self.metric in AT_LEAST else value < limit

    def __str__(self) -> str:
        sign = ">" if self.metric in AT_LEAST else "<"
        if self.relation == "times":
            return f"{self.metric} {sign} {_text(self.amount)}x"
        shown = _text(abs(self.amount) * (100 if UNITS[self.metric] == "%" else 1)) + UNITS[self.metric]
        if self.relation == "value":
            return f"{self.metric} {sign} {shown}"
        return f"{self.metric} {sign} champion {'-' if self.amount < 0 else '+'} {shown}"


@lru_cache(maxsize=1_024)
def parse_guard(text: str) -> Guard:
    """Parse a guard; `InvalidValueError`, which says what is allowed, if it is none."""
    match = _GUARD.fullmatch(text.strip()) if len(text) <= TEXT_CHARS_MAX else None
    if match is None:
        raise InvalidValueError(
            f"guard {text[:TEXT_CHARS_MAX]!r}: expected METRIC < LIMIT, such as {_EXAMPLES['errors']}, p99 < 80ms;"
            f" metrics are {', '.join(METRICS)}"
        )
    metric = next((known for known in METRICS if known == match["metric"]), None)
    if metric is None:
        raise InvalidValueError(f"guard {text!r}: the metric is not one of {', '.join(METRICS)}")
    if (match["sign"] == ">") != (metric in AT_LEAST):
        raise _unfit(text, metric)
    if match["times"] is not None:
        return _relative(text, Guard(metric, "times", float(match["times"])))
    if match["side"] is not None:
        amount = _amount(text, metric, match["delta"], match["delta_unit"])
        return _relative(text, Guard(metric, "champion", -amount if match["side"] == "-" else amount))
    return Guard(metric, "value", _amount(text, metric, match["value"], match["unit"]))


def parse_guards(texts: Iterable[str]) -> list[Guard]:
    """Parse guards; `InvalidValueError` for more than `GUARDS_MAX`, and for one that is none."""
    texts = list(texts)
    if len(texts) > GUARDS_MAX:
        raise InvalidValueError(f"guards: {len(texts)}; at most {GUARDS_MAX} are allowed")
    return [parse_guard(text) for text in texts]


def _relative(text: str, guard: Guard) -> Guard:
    if guard.metric not in RELATIVE or (guard.relation == "times" and guard.metric in AT_LEAST):
        raise _unfit(text, guard.metric)
    return guard


def _amount(text: str, metric: Metric, number: str, unit: str | None) -> float:
    amount = float(number)
    match UNITS[metric], unit:
        case "%", "%":
            return amount / 100
        case "ms", "ms":
            return amount
        case "ms", "s":
            return amount * 1_000
        case "", None:
            return amount
    raise _unfit(text, metric)


def _unfit(text: str, metric: Metric) -> InvalidValueError:
    example = _EXAMPLES.get(metric, f"{metric} < 80ms, {metric} < 1.5x or {metric} < champion + 20ms")
    return InvalidValueError(f"guard {text!r}: for {metric}, write {example}")


def _text(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
