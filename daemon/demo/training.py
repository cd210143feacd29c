"""Trains the model of the demo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inferd.daemon.demo.flights import FlightSet
from inferd.streams.openmp import load_openmp

if TYPE_CHECKING:
    import lightgbm

TREES = 80
THREADS_MAX = 1


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A booster, and its model file."""

    booster: lightgbm.Booster
    text: bytes

    def predict(self, flights: FlightSet) -> NDArray[np.float64]:
        """(flights,) LightGBM's own predictions: the probability of a late arrival."""
        return np.asarray(self.booster.predict(flights.features), dtype=np.float64)


def train(flights: FlightSet, trees: int = TREES) -> TrainedModel:
    """Trains a binary classifier of late arrivals."""
    load_openmp()
    import lightgbm

    threads = min(THREADS_MAX, os.cpu_count() or 1)
    parameters = {
        "objective": "binary",
        "num_leaves": 31,
        "learning_rate": 0.1,
        "num_threads": threads,
        "seed": 1,
        "deterministic": True,
        "verbose": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(flights.features, flights.late), num_boost_round=trees)
    return TrainedModel(booster, booster.model_to_string().encode())
