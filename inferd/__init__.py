"""The public API. Names are imported lazily, so that `import inferd` is fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferd.client import Client as Client
    from inferd.daemon.http.local import ModelServer as ModelServer
    from inferd.deploy import deploy_file as deploy_file
    from inferd.errors import AccessDeniedError as AccessDeniedError
    from inferd.errors import BrokerUnreachableError as BrokerUnreachableError
    from inferd.errors import ResultTimeoutError as ResultTimeoutError
    from inferd.errors import TlsError as TlsError
    from inferd.errors import TopicNotFoundError as TopicNotFoundError
    from inferd.factories import create_batch_predictor as create_batch_predictor
    from inferd.factories import create_model_server as create_model_server
    from inferd.factories import create_realtime_predictor as create_realtime_predictor
    from inferd.jobs import JobRow as JobRow
    from inferd.schemas.connection import KafkaConnection as KafkaConnection
    from inferd.schemas.errors import BatchJobError as BatchJobError
    from inferd.schemas.errors import InferenceError as InferenceError
    from inferd.schemas.errors import ModelServingError as ModelServingError
    from inferd.schemas.errors import ServerError as ServerError
    from inferd.schemas.jobs import JobStatus as JobStatus
    from inferd.schemas.models import Manifest as Manifest
    from inferd.schemas.oauth import AccessToken as AccessToken
    from inferd.schemas.oauth import OAuth as OAuth
    from inferd.schemas.oauth import TokenProvider as TokenProvider
    from inferd.schemas.requests import Failure as Failure
    from inferd.schemas.requests import Prediction as Prediction
    from inferd.schemas.requests import json_input as json_input
    from inferd.streams.openmp import load_openmp as load_openmp
    from inferd.streams.serving import BatchPredictor as BatchPredictor
    from inferd.streams.serving import ModelManager as ModelManager
    from inferd.streams.serving import RealtimePredictor as RealtimePredictor
    from inferd.sync import SyncClient as SyncClient

_MODULE_OF = {
    "AccessDeniedError": "inferd.errors",
    "AccessToken": "inferd.schemas.oauth",
    "OAuth": "inferd.schemas.oauth",
    "TokenProvider": "inferd.schemas.oauth",
    "BatchJobError": "inferd.schemas.errors",
    "BatchPredictor": "inferd.streams.serving",
    "BrokerUnreachableError": "inferd.errors",
    "Client": "inferd.client",
    "create_batch_predictor": "inferd.factories",
    "create_model_server": "inferd.factories",
    "create_realtime_predictor": "inferd.factories",
    "deploy_file": "inferd.deploy",
    "Failure": "inferd.schemas.requests",
    "InferenceError": "inferd.schemas.errors",
    "JobRow": "inferd.jobs",
    "JobStatus": "inferd.schemas.jobs",
    "json_input": "inferd.schemas.requests",
    "KafkaConnection": "inferd.schemas.connection",
    "load_openmp": "inferd.streams.openmp",
    "Manifest": "inferd.schemas.models",
    "ModelManager": "inferd.streams.serving",
    "ModelServer": "inferd.daemon.http.local",
    "ModelServingError": "inferd.schemas.errors",
    "Prediction": "inferd.schemas.requests",
    "RealtimePredictor": "inferd.streams.serving",
    "ResultTimeoutError": "inferd.errors",
    "ServerError": "inferd.schemas.errors",
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
