"""Errors of the process that its peers never see.

ServerError
├── SettingsError           (daemon/settings/table.py) settings are wrong: exit code 2
└── BrokerUnreachableError   no bootstrap server answers: exit code 3 of commands
"""

from __future__ import annotations

from inferd.daemon.broker.errors import BrokerError
from inferd.schemas.errors import ModelServingError, ServerError


class BrokerUnreachableError(ServerError):
    """No bootstrap server answers; the message has the reason of each."""


def words_of(error: BaseException) -> str:
    """What to say of any error, never empty; those of libraries are named."""
    if isinstance(error, (ModelServingError, BrokerError)):
        return error.message
    name, text = type(error).__name__, str(error)
    return text if name in text or (text and isinstance(error, OSError)) else f"{name}: {text}".removesuffix(": ")
