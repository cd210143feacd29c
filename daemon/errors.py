"""Error texts for logs and commands."""

from __future__ import annotations

from inferd.daemon.broker.errors import BrokerError
from inferd.schemas.errors import ModelServingError


def error_text(error: BaseException) -> str:
    """A message for any error, never empty. Errors of libraries include their class name."""
    if isinstance(error, (ModelServingError, BrokerError)):
        return error.message
    name, text = type(error).__name__, str(error)
    return text if name in text or (text and isinstance(error, OSError)) else f"{name}: {text}".removesuffix(": ")
