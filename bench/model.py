"""The model that all peers serve, and its correct predictions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.layouts import FEATURES
from bench.libraries import LIBRARIES, Predict

MODEL_VERSION = 1
TREES = 100
LEAVES = 31
TRAINING_ROWS = 8_000
SEED = 20_240_229


@dataclass(frozen=True)
class BenchModel:
    """The model file and its SHA-256."""

    path: Path
    digest: str
    library: str = "lightgbm"
    """A name of `LIBRARIES`."""

    @property
    def identity(self) -> tuple[int, str]:
        """The (version, digest) in every result."""
        return MODEL_VERSION, self.digest

    @cached_property
    def _predict(self) -> Predict:
        return LIBRARIES[self.library](str(self.path))

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The library's own predictions for (rows, columns): numbers or class labels (rows,)."""
        return np.asarray(self._predict(rows))

    @classmethod
    def of(cls, path: Path, library: str = "lightgbm") -> BenchModel:
        """The model in a file."""
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest(), library)


def train_model(directory: Path) -> BenchModel:
    """Trains a binary LightGBM model of 100 trees x 31 leaves over 30 float64 features; deterministic."""
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(TRAINING_ROWS, FEATURES))
    signal = rows @ random.normal(size=FEATURES) + np.sin(rows[:, 0] * rows[:, 1]) * 3
    labels = signal + random.normal(size=TRAINING_ROWS) > 0
    parameters = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "deterministic": True,
        "force_row_wise": True,
        "seed": SEED,
        "num_threads": 1,  # several threads wait for each other on a busy machine
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), num_boost_round=TREES)
    leaves = sum(int(tree["num_leaves"]) for tree in booster.dump_model()["tree_info"])
    if leaves != TREES * LEAVES:
        raise BenchError(f"the model has {leaves} leaves, not {TREES} x {LEAVES}: training was not deterministic")
    path = directory / "model.txt"
    booster.save_model(path)
    return BenchModel.of(path)
