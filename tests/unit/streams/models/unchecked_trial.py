"""A trial process without the structural check, so that LightGBM reads damaged files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from inferd.schemas.limits import Limits
from inferd.streams.inference.formats.lightgbm.c_library import library
from inferd.streams.inference.formats.lightgbm.runtime import _Booster
from inferd.streams.models.trial import process as trial_process


def load_unchecked(case: trial_process.CaseFile, limits: Limits) -> trial_process.Verdict:
    booster = _Booster(library(), Path(case.path).read_bytes(), 6, 1)
    booster.predict(np.zeros((2, 6)), 0, 4_096)
    return trial_process.Verdict(True, None, 1)


if __name__ == "__main__":
    trial_process.try_model = load_unchecked
    sys.exit(trial_process.main(sys.argv[1:]))
