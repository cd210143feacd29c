"""Immediate exit of the process: nothing is finished, flushed or committed."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from typing import NoReturn

import structlog

EXIT_DRAIN_TIMEOUT = 70
EXIT_STALLED = 71
EXIT_ZOMBIE = 72
LOG_TIMEOUT_S = 0.5
log = structlog.get_logger(__name__)


def leave(exit_code: int, reason: str) -> NoReturn:
    """Ends the process with `exit_code` after logging `reason`; logging may take at most `LOG_TIMEOUT_S`."""
    # In a thread: standard error may be a full pipe without a reader.
    thread = threading.Thread(target=_log_exit, args=(exit_code, reason), daemon=True)
    thread.start()
    thread.join(LOG_TIMEOUT_S)
    os._exit(exit_code)


def end_within(timeout_s: float, exit_code: int) -> threading.Timer:
    """Ends the process with `exit_code` after `timeout_s`, unless the returned timer is cancelled."""
    timer = threading.Timer(timeout_s, os._exit, [exit_code])
    timer.daemon = True
    timer.start()
    return timer


def _log_exit(exit_code: int, reason: str) -> None:
    log.critical("worker_left", reason=reason, exit_code=exit_code)
    if exit_code == EXIT_ZOMBIE:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
