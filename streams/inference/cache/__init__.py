"""The prediction cache of one tenant: keys, values, eviction, and the changes to its tables."""

from inferd.streams.inference.cache.cache import HTTP_PARTITION, CacheSnapshot, PredictionCache, RowLookup
from inferd.streams.inference.cache.distinct import distinct_rows
from inferd.streams.inference.cache.partition import Change
from inferd.streams.inference.cache.policy import S3Fifo

__all__ = ["HTTP_PARTITION", "CacheSnapshot", "Change", "PredictionCache", "RowLookup", "S3Fifo", "distinct_rows"]
