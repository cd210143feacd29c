"""HTTP in a plain script, without a broker: `ModelServer` and the services behind its routes."""

from inferd.daemon.http.local.model_server import ModelServer

__all__ = ["ModelServer"]
