"""Resource limits for the trial of a model, and for its size."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.schemas.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """Limits for one model. `start_s` covers starting the process and importing the library: in a worker each format
    has its own trial processes."""

    memory_bytes: int = 4 * 2**30
    """Address space of the process: with Python's own, which is about 0.3 GB."""
    cpu_s: float = 60.0
    wall_s: float = 60.0
    start_s: float = 120.0
    sizes: Limits = DEFAULT_LIMITS
    """Of the model file and its features."""


DEFAULT_TRIAL_LIMITS = TrialLimits()
