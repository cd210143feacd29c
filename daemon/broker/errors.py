"""Errors of the embedded broker.

ServerError
└── BrokerError
    ├── BrokerSettingError      a setting has a value that is not allowed
    ├── BrokerUnavailableError  the packages for Java and Kafka are not installed, or the platform is not supported
    ├── JarsUnavailableError    Kafka's jars could not be downloaded
    ├── JarsRejectedError       a downloaded jar does not match the lock file
    ├── PortTakenError          another process listens on the port
    ├── DataDirInUseError       another running broker uses the data directory
    ├── DataDirUnusableError    the data directory is not inferd's, of another version, or damaged
    └── BrokerStartError        the broker exited, or did not respond in time, during its start
"""

from inferd.schemas.errors import ServerError


class BrokerError(ServerError):
    """Base of the embedded broker's errors. `message` is one line with the cause and the remedy."""


class BrokerSettingError(BrokerError):
    """A setting of the embedded broker has a value that is not allowed."""


class BrokerUnavailableError(BrokerError):
    """The embedded broker cannot run in this installation or on this platform."""


class JarsUnavailableError(BrokerError):
    """Kafka's jars are not in the cache and could not be downloaded."""


class JarsRejectedError(BrokerError):
    """A downloaded jar differs from the one in the lock file."""


class PortTakenError(BrokerError):
    """Another process listens on the broker's port."""


class DataDirInUseError(BrokerError):
    """Another running broker uses the data directory."""


class DataDirUnusableError(BrokerError):
    """The data directory is not inferd's, was written by another version, or is damaged."""


class BrokerStartError(BrokerError):
    """The broker exited during its start, or did not respond in time. `log_tail` has the last lines of its log."""

    def __init__(self, message: str, log_tail: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        self.exit_code = exit_code

    @property
    def is_crash(self) -> bool:
        """Whether a signal killed the process."""
        return self.exit_code is not None and self.exit_code < 0
