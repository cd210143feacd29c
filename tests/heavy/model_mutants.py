"""Thousands of damaged XGBoost and CatBoost files in trial processes (`make model-mutants MUTANTS=100`).

Prints the verdicts by format. If a library crashes on a mutant, that is its verdict, and the next mutant is tested in
another process. Fails if a verdict is missing, or if a process or file is left behind.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from inferd.streams.inference.formats.catboost.model_file import read_model_file as read_catboost
from inferd.streams.inference.formats.xgboost.model_file import read_model_file as read_xgboost
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.catboost import test_catboost_mutants as of_catboost
from tests.unit.streams.inference.formats.mutations import is_read
from tests.unit.streams.inference.formats.xgboost import test_xgboost_mutants as of_xgboost

LIMITS = TrialLimits(wall_s=60, cpu_s=10)
Formats = dict[str, tuple[tuple[str, ...], Callable[[str, int], list[bytes]], Callable[[bytes], object]]]
"""Names of models, how they are damaged, and how their files are checked."""
FORMATS: Formats = {
    "xgboost": (of_xgboost.NAMES, of_xgboost.mutants, read_xgboost),
    "catboost": (of_catboost.NAMES, of_catboost.mutants, read_catboost),
}


def main(each: int) -> int:
    before = left_behind()
    for name, (models, mutants, read) in FORMATS.items():
        damaged = [mutant for model in models for mutant in mutants(model, each)]
        passed = [mutant for mutant in damaged if is_read(read, mutant)]
        verdicts = try_models([TrialCase(mutant) for mutant in passed], LIMITS)
        if len(verdicts) != len(passed):
            print(f"{name}: {len(passed) - len(verdicts)} verdicts are missing")
            return 1
        ends = Counter("predicts" if verdict.ok else (verdict.reason or "").partition(":")[0] for verdict in verdicts)
        print(f"{name}: {len(damaged)} mutants, {len(damaged) - len(passed)} refused when read, then {dict(ends)}")
    if extra := left_behind() - before:
        print(f"left behind: {sorted(extra)}")
    return bool(extra)


def left_behind() -> set[str]:
    """Files of trials, and processes of this one."""
    children = Path("/proc/self/task").glob("*/children")
    processes = {f"process {pid}" for path in children for pid in path.read_text().split()}
    return processes | {str(path) for path in Path(tempfile.gettempdir()).glob("inferd-trial-*")}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
