"""Factories of servers and predictors for a `ModelManager` or a directory of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferd.daemon.http.local import ModelServer
from inferd.schemas.topics import DEFAULT_TENANT
from inferd.streams.serving import BatchPredictor, Cache, ModelManager, RealtimePredictor

ModelStore = ModelManager | str | Path
"""A `ModelManager`, or its directory."""


def create_model_server(
    model_manager: ModelStore,
    host: str = "127.0.0.1",
    port: int = 8000,
    tenant_id: str | None = None,
    **options: Any,
) -> ModelServer:
    """A `ModelServer`; call its `start_server()`. `options` are its keyword arguments."""
    return ModelServer(_manager(model_manager, tenant_id), host, port, tenant_id, **options)


def create_batch_predictor(model_manager: ModelStore, tenant_id: str | None = None, **options: Any) -> BatchPredictor:
    """A `BatchPredictor`; `options` are its keyword arguments."""
    return BatchPredictor(_manager(model_manager, tenant_id), tenant_id, **options)


def create_realtime_predictor(
    model_manager: ModelStore, cache: Cache | None = None, tenant_id: str | None = None
) -> RealtimePredictor:
    """A `RealtimePredictor`."""
    return RealtimePredictor(_manager(model_manager, tenant_id), cache, tenant_id)


def _manager(given: ModelStore, tenant_id: str | None) -> ModelManager:
    return ModelManager(given, tenant_id or DEFAULT_TENANT) if isinstance(given, str | Path) else given
