"""The text of any error, for logs and commands."""

from __future__ import annotations

from inferd.daemon.broker.errors import BrokerError
from inferd.schemas.errors import ModelServingError


def words_of(error: BaseException) -> str:
    """What to say of any error, never empty; those of libraries are named."""
    if isinstance(error, (ModelServingError, BrokerError)):
        return error.message
    name, text = type(error).__name__, str(error)
    return text if name in text or (text and isinstance(error, OSError)) else f"{name}: {text}".removesuffix(": ")
