"""What can go wrong in a measurement."""


class BenchError(Exception):
    """The measurement is void; `message` is one text that says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
