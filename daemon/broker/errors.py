"""What can go wrong with the embedded broker.

ServerError
└── BrokerError
    ├── BrokerSettingError      a setting has a value that it cannot have
    ├── BrokerUnavailableError  the packages that bring Java and Kafka are not installed, or the platform is not served
    ├── JarsUnavailableError    Kafka's jars could not be downloaded
    ├── JarsRejectedError       a downloaded jar is not the one that was locked
    ├── PortTakenError          another process listens on the port
    ├── DataDirInUseError       another live broker uses the data directory
    ├── DataDirUnusableError    the data directory is not ours, or of another version, or damaged
    └── BrokerStartError        the broker ended, or did not answer in time, while it was starting
"""

from inferd.schemas.errors import ServerError


class BrokerError(ServerError):
    """The embedded broker cannot do what was asked; `message` is one line that says why and what to do."""


class BrokerSettingError(BrokerError):
    """A setting of the embedded broker has a value that it cannot have."""


class BrokerUnavailableError(BrokerError):
    """The embedded broker cannot run in this installation or on this platform."""


class JarsUnavailableError(BrokerError):
    """Kafka's jars are not in the cache and could not be downloaded."""


class JarsRejectedError(BrokerError):
    """A downloaded jar differs from the one in the lock file."""


class PortTakenError(BrokerError):
    """Another process listens on the broker's port."""


class DataDirInUseError(BrokerError):
    """Another live broker uses the data directory."""


class DataDirUnusableError(BrokerError):
    """The data directory is not ours, was written by another version, or is damaged."""


class BrokerStartError(BrokerError):
    """The broker ended, or did not answer in time, while it was starting; `log_tail` holds its last lines."""

    def __init__(self, message: str, log_tail: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        self.exit_code = exit_code

    @property
    def is_crash(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_code is not None and self.exit_code < 0
