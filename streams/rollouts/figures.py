"""What the guards of a rollout measure: figures of two versions over one step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd.schemas.rollouts import Breach, Guard, Measure, Metric, Rollout, parse_guard

NOTHING: Mapping[Metric, float] = {}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one version did in a step."""

    requests: int = 0
    values: Mapping[Metric, float] = field(default_factory=lambda: NOTHING)
    """Shares in [0, 1], times in milliseconds; what was not measured is absent."""
    labelled: int = 0
    """Rows whose labels are known."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The new version beside the champion, in the same step."""

    new: Figures = Figures()
    champion: Figures = Figures()


def measures_of(rollout: Rollout, compared: Compared) -> list[Measure]:
    """What each guard measures now."""
    return [
        Measure(text, *_value_and_limit(parse_guard(text), rollout, compared), compared.new.requests)
        for text in rollout.guards
    ]


def breach_of(rollout: Rollout, compared: Compared, now_ms: int) -> Breach | None:
    """The first guard that is breached; None if all hold, as far as is known."""
    for text in rollout.guards:
        guard = parse_guard(text)
        value, limit = _value_and_limit(guard, rollout, compared)
        if value is not None and limit is not None and not guard.holds(value, limit):
            champion = None if guard.relation == "value" else compared.champion.values[guard.metric]
            step = rollout.steps[rollout.step]
            return Breach(text, value, limit, compared.new.requests, step, now_ms, champion)
    return None


def _value_and_limit(guard: Guard, rollout: Rollout, compared: Compared) -> tuple[float | None, float | None]:
    """None for what is unknown, or rests on fewer requests than guards need."""
    value, champion = (_known(each, guard.metric, rollout) for each in (compared.new, compared.champion))
    return value, guard.limit(champion)


def _known(figures: Figures, metric: Metric, rollout: Rollout) -> float | None:
    counted = figures.labelled if metric == "auc" else figures.requests
    return figures.values.get(metric) if counted >= rollout.guard_requests_min else None
