"""The objects that users hold: models, predictors and batch jobs in their own process, without a broker.

`ModelManager`, `RealtimePredictor` and `BatchPredictor` work in a plain script over a directory, and in a worker over
its own models; a subclass named to `inferd worker` does its work there.
"""

from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.custom import Custom, add_own_models
from inferd.streams.serving.local_job import JobOrder
from inferd.streams.serving.model_manager import ModelManager, manager_of
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from inferd.streams.serving.row_cache import Cache

__all__ = [
    "BatchPredictor",
    "Cache",
    "Custom",
    "JobOrder",
    "ModelManager",
    "RealtimePredictor",
    "add_own_models",
    "manager_of",
]
