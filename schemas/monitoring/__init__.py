"""Monitoring: windows of what a version scored, which add up, and their codec."""

from inferd.schemas.monitoring.codec import WINDOW_BYTES_MAX, decode_window, encode_window
from inferd.schemas.monitoring.histograms import (
    LATENCY_BINS,
    LATENCY_BINS_PER_DOUBLING,
    LOG_BINS,
    LOG_BINS_PER_DOUBLING,
    LOG_LEAST_EXPONENT,
    UNIT_BINS,
    Counts,
    Scale,
    added,
    latency_bin,
    latency_bound_ms,
    latency_quantile_ms,
)
from inferd.schemas.monitoring.window import (
    WINDOW_S,
    Features,
    FeatureStats,
    Predictions,
    Variant,
    WindowStats,
    merge,
    merged,
)

__all__ = [
    "LATENCY_BINS",
    "LATENCY_BINS_PER_DOUBLING",
    "LOG_BINS",
    "LOG_BINS_PER_DOUBLING",
    "LOG_LEAST_EXPONENT",
    "UNIT_BINS",
    "WINDOW_BYTES_MAX",
    "WINDOW_S",
    "Counts",
    "FeatureStats",
    "Features",
    "Predictions",
    "Scale",
    "Variant",
    "WindowStats",
    "added",
    "decode_window",
    "encode_window",
    "latency_bin",
    "latency_bound_ms",
    "latency_quantile_ms",
    "merge",
    "merged",
]
