"""The life of models in production: windows of what each version scored, on the worker that owns them."""

from inferd.streams.lifecycle.composition import TenantLifecycle, compose_lifecycle
from inferd.streams.lifecycle.drift_watch import DriftWatch
from inferd.streams.lifecycle.processors import LifecycleContext, LifecycleProcessor, StatsProcessor
from inferd.streams.lifecycle.windows import WindowStore

__all__ = [
    "DriftWatch",
    "LifecycleContext",
    "LifecycleProcessor",
    "StatsProcessor",
    "TenantLifecycle",
    "WindowStore",
    "compose_lifecycle",
]
