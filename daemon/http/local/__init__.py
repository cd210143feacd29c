"""HTTP server of a script, without a broker: `ModelServer` and the backends of its routes."""

from inferd.daemon.http.local.model_server import ModelServer

__all__ = ["ModelServer"]
