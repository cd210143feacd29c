"""What users of inferd import. Names are loaded when they are first used, so that `import inferd` is light."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daemon.http.model_server import ModelServer as ModelServer
    from inferd.client import Client as Client
    from inferd.deploy import deploy_file as deploy_file
    from inferd.errors import AccessDeniedError as AccessDeniedError
    from inferd.errors import BrokerUnreachableError as BrokerUnreachableError
    from inferd.errors import ResultTimeoutError as ResultTimeoutError
    from inferd.errors import TlsError as TlsError
    from inferd.errors import TopicNotFoundError as TopicNotFoundError
    from inferd.factories import create_batch_predictor as create_batch_predictor
    from inferd.factories import create_model_server as create_model_server
    from inferd.factories import create_realtime_predictor as create_realtime_predictor
    from inferd.jobs_results import JobRow as JobRow
    from inferd.sync import SyncClient as SyncClient
    from schemas.client_input import json_input as json_input
    from schemas.connection import KafkaConnection as KafkaConnection
    from schemas.errors import BatchJobError as BatchJobError
    from schemas.errors import InferenceError as InferenceError
    from schemas.errors import ModelServingError as ModelServingError
    from schemas.errors import ServerError as ServerError
    from schemas.jobs import JobStatus as JobStatus
    from schemas.models import Manifest as Manifest
    from schemas.results import Failure as Failure
    from schemas.results import Prediction as Prediction
    from streams.inference.openmp import load_openmp as load_openmp
    from streams.serving.batch_predictor import BatchPredictor as BatchPredictor
    from streams.serving.model_manager import ModelManager as ModelManager
    from streams.serving.realtime_predictor import RealtimePredictor as RealtimePredictor

_MODULE_OF = {
    "AccessDeniedError": "inferd.errors",
    "BatchJobError": "schemas.errors",
    "BatchPredictor": "streams.serving.batch_predictor",
    "BrokerUnreachableError": "inferd.errors",
    "Client": "inferd.client",
    "create_batch_predictor": "inferd.factories",
    "create_model_server": "inferd.factories",
    "create_realtime_predictor": "inferd.factories",
    "deploy_file": "inferd.deploy",
    "Failure": "schemas.results",
    "InferenceError": "schemas.errors",
    "JobRow": "inferd.jobs_results",
    "JobStatus": "schemas.jobs",
    "json_input": "schemas.client_input",
    "KafkaConnection": "schemas.connection",
    "load_openmp": "streams.inference.openmp",
    "Manifest": "schemas.models",
    "ModelManager": "streams.serving.model_manager",
    "ModelServer": "daemon.http.model_server",
    "ModelServingError": "schemas.errors",
    "Prediction": "schemas.results",
    "RealtimePredictor": "streams.serving.realtime_predictor",
    "ResultTimeoutError": "inferd.errors",
    "ServerError": "schemas.errors",
    "SyncClient": "inferd.sync",
    "TlsError": "inferd.errors",
    "TopicNotFoundError": "inferd.errors",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  (sorted() gives a list)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'inferd' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
