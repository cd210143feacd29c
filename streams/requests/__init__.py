"""Prediction requests: their processor, micro-batch sizing and the table of the prediction cache."""

from inferd.streams.requests.batch_scoring import BatchScoring
from inferd.streams.requests.batch_sizing import BatchSizer
from inferd.streams.requests.cache_table import CacheTable
from inferd.streams.requests.processor import RequestProcessor
from inferd.streams.requests.quota import Quota, share_of
from inferd.streams.requests.results import Timing

__all__ = ["BatchScoring", "BatchSizer", "CacheTable", "Quota", "RequestProcessor", "Timing", "share_of"]
