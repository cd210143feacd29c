"""What a model may take in its trial, and how large it may be."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.schemas.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """Limits of one model; `start_s` is for the start of the process and the import of the library: in a worker each
    format is tried in processes of its own."""

    memory_bytes: int = 4 * 2**30
    """Address space of the process: with Python's own, which is about 0.3 GB."""
    cpu_s: float = 60.0
    wall_s: float = 60.0
    start_s: float = 120.0
    sizes: Limits = DEFAULT_LIMITS
    """Of the model file and its features."""


DEFAULT_TRIAL_LIMITS = TrialLimits()
