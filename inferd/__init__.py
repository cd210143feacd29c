"""What users of inferd import. Names are loaded when they are first used, so that `import inferd` is light."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferd.client import Client as Client
    from inferd.deploy import deploy_file as deploy_file
    from inferd.errors import BrokerUnreachableError as BrokerUnreachableError
    from inferd.errors import ResultTimeoutError as ResultTimeoutError
    from inferd.errors import TopicNotFoundError as TopicNotFoundError
    from inferd.sync import SyncClient as SyncClient
    from schemas.connection import KafkaConnection as KafkaConnection
    from schemas.errors import BatchJobError as BatchJobError
    from schemas.errors import InferenceError as InferenceError
    from schemas.errors import ModelServingError as ModelServingError
    from schemas.errors import ServerError as ServerError
    from schemas.models import Manifest as Manifest
    from schemas.results import Failure as Failure
    from schemas.results import Prediction as Prediction

_MODULE_OF = {
    "BatchJobError": "schemas.errors",
    "BrokerUnreachableError": "inferd.errors",
    "Client": "inferd.client",
    "Failure": "schemas.results",
    "InferenceError": "schemas.errors",
    "deploy_file": "inferd.deploy",
    "KafkaConnection": "schemas.connection",
    "Manifest": "schemas.models",
    "ModelServingError": "schemas.errors",
    "Prediction": "schemas.results",
    "ResultTimeoutError": "inferd.errors",
    "ServerError": "schemas.errors",
    "SyncClient": "inferd.sync",
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
