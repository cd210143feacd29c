"""Labels: what was true of requests is joined with what was predicted, and adds to the windows of the versions."""

from inferd.streams.labels.composition import TenantLabels, compose_labels
from inferd.streams.labels.join import OUTCOMES
from inferd.streams.labels.predictions import PredictionsToLabel

__all__ = ["OUTCOMES", "PredictionsToLabel", "TenantLabels", "compose_labels"]
