"""What is logged in a plain script: on standard error, since standard output is the script's own."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def log_to_stderr() -> None:
    """Sends logs to standard error unless the program, or a worker, has said where they go."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO), logger_factory=_print_to_stderr
        )


def _print_to_stderr(*_names: Any) -> structlog.PrintLogger:
    return structlog.PrintLogger(sys.stderr)
