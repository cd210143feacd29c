"""The Python API without a broker: models, predictors and batch jobs in the user's own process.

`ModelManager`, `RealtimePredictor` and `BatchPredictor` work in a script on models in a directory, and in a worker on
its deployed models. `inferd worker` can be configured to use subclasses of the predictors.
"""

from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.local_job import JobSpec
from inferd.streams.serving.model_manager import ModelManager, manager_of
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from inferd.streams.serving.row_cache import Cache
from inferd.streams.serving.user_code import UserCode, add_own_models

__all__ = [
    "BatchPredictor",
    "Cache",
    "JobSpec",
    "ModelManager",
    "RealtimePredictor",
    "UserCode",
    "add_own_models",
    "manager_of",
]
