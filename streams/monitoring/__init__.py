"""Monitoring in the lane: counts what micro-batches scored, by version and minute, for `model-stats`."""

from inferd.streams.monitoring.counting import CountedPart, Label
from inferd.streams.monitoring.features import FeatureCounter, make_baseline
from inferd.streams.monitoring.monitor import BaselineOf, Monitor, RowSample
from inferd.streams.monitoring.predictions import PredictionCounter

__all__ = [
    "BaselineOf",
    "CountedPart",
    "FeatureCounter",
    "Label",
    "Monitor",
    "PredictionCounter",
    "RowSample",
    "make_baseline",
]
