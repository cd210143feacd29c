"""Reads the windows of model versions from the table of the workers, and compares them with baselines."""

from inferd.monitoring.windows import DriftReport, WindowLog

__all__ = ["DriftReport", "WindowLog"]
