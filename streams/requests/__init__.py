"""Prediction requests: their processor, micro-batch sizing and the table of the prediction cache."""

from inferd.streams.requests.batch_scoring import BatchScoring
from inferd.streams.requests.batch_sizing import Pace
from inferd.streams.requests.cache_table import Predictions
from inferd.streams.requests.processor import TenantLane

__all__ = ["BatchScoring", "Pace", "Predictions", "TenantLane"]
