"""Hundreds of damaged XGBoost files: each is rejected with a typed error, or loads and predicts; none ends a
process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from inferd.streams.inference.formats.xgboost.model_file import read_model_file
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.mutations import OF_BYTES, Mutate, change_a_byte, is_read
from tests.unit.streams.inference.formats.xgboost.xgboost_models import train

NAMES = ("binary", "softprob", "categories", "vectors", "dart", "linear", "quantiles")
NUMBERS: tuple[Any, ...] = (0, -1, 1, 2, 31, 2**31 - 1, 2**31, 2**40, -(2**31), 1e38, "7", "0", "-1", "99999999999", [])


def places(value: Any) -> list[tuple[Any, Any]]:
    """The location of each value in a JSON document: its container, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in ((value, key), *places(value[key]))]


def _changed(content: bytes, chance: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    document = json.loads(content)
    change(*chance.choice(places(document)))
    return json.dumps(document).encode()


def change_a_value(content: bytes, chance: random.Random) -> bytes:
    return _changed(content, chance, lambda container, key: container.__setitem__(key, chance.choice(NUMBERS)))


def remove_a_value(content: bytes, chance: random.Random) -> bytes:
    return _changed(content, chance, lambda container, key: container.__delitem__(key))


OF_JSON: tuple[Mutate, ...] = (change_a_value, remove_a_value, change_a_byte)


def mutants(name: str, each: int) -> list[bytes]:
    """Damaged UBJSON and JSON files of the model `name`, `each` of every kind of damage."""
    binary, text = train(name).content, train(name, "json").content
    kinds = [(binary, mutate) for mutate in OF_BYTES] + [(text, mutate) for mutate in OF_JSON]
    return [
        mutate(content, random.Random(f"{name} {mutate.__name__} {seed}"))
        for content, mutate in kinds
        for seed in range(each)
    ]


def test_no_damaged_model_is_accepted_or_ends_the_process() -> None:
    damaged = [mutant for name in NAMES for mutant in mutants(name, 12)]
    assert len(damaged) > 500
    passed = [mutant for mutant in damaged if is_read(read_model_file, mutant)]
    assert 0.05 < len(passed) / len(damaged) < 0.6
    verdicts = try_models([TrialCase(mutant) for mutant in passed], TrialLimits(wall_s=10, cpu_s=5))
    assert len(verdicts) == len(passed)
    reasons = {verdict.reason or "" for verdict in verdicts if not verdict.ok}
    assert not [reason for reason in reasons if "SIG" in reason or "did not finish" in reason], reasons
