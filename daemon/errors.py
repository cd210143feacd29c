"""Errors of the process that its peers never see.

ServerError
├── SettingsError           (daemon/setting_table.py) settings are wrong: exit code 2
└── BrokerUnreachableError   no bootstrap server answers: exit code 3 of commands
"""

from __future__ import annotations

from schemas.errors import ServerError


class BrokerUnreachableError(ServerError):
    """No bootstrap server answers; the message has the reason of each."""
