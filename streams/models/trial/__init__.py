"""The disposable process in which a model is tried before it serves."""

from inferd.streams.models.trial.process import Verdict
from inferd.streams.models.trial.trial import TrialCase, try_models

__all__ = ["TrialCase", "Verdict", "try_models"]
