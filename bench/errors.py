"""The error of a benchmark."""


class BenchError(Exception):
    """The measurement is invalid; `message` explains the cause and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
