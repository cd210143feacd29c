"""Hundreds of damaged CatBoost files: each gets a verdict within limited time, whatever the library does."""

from __future__ import annotations

import random

from inferd.streams.inference.formats.catboost.model_file import read_model_file
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.catboost.catboost_models import train
from tests.unit.streams.inference.formats.mutations import OF_BYTES, change_a_word, is_read

NAMES = ("logloss", "text_labels", "targets", "lossguide", "mixed")


def mutants(name: str, each: int) -> list[bytes]:
    """Damaged files of the model `name`, `each` of every kind of damage."""
    content = train(name).content
    return [
        mutate(content, random.Random(f"{name} {mutate.__name__} {seed}"))
        for mutate in (*OF_BYTES, change_a_word)
        for seed in range(each)
    ]


def test_damaged_models_of_numbers_are_rejected_or_predict() -> None:
    damaged = [mutant for name in NAMES[:-1] for mutant in mutants(name, 21)]
    assert len(damaged) > 500
    passed = [mutant for mutant in damaged if is_read(read_model_file, mutant)]
    assert 0.05 < len(passed) / len(damaged) < 0.5
    verdicts = try_models([TrialCase(mutant) for mutant in passed], TrialLimits(wall_s=60, cpu_s=10))
    assert len(verdicts) == len(passed)
    reasons = {verdict.reason or "" for verdict in verdicts if not verdict.ok}
    assert not [reason for reason in reasons if "SIG" in reason or "did not finish" in reason], reasons
