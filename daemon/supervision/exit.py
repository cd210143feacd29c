"""Ending the process at once: nothing is finished, flushed or committed on the way."""

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
LAST_WORDS_S = 0.5
log = structlog.get_logger(__name__)


def leave(exit_code: int, reason: str) -> NoReturn:
    """Ends the process with `exit_code` within `LAST_WORDS_S`, which is also how long it may take to say why."""
    # In a thread: standard error may be a pipe that nobody reads any more.
    speaker = threading.Thread(target=_say, args=(exit_code, reason), daemon=True)
    speaker.start()
    speaker.join(LAST_WORDS_S)
    os._exit(exit_code)


def end_within(timeout_s: float, exit_code: int) -> threading.Timer:
    """Ends the process with `exit_code` unless it has ended, or the timer was cancelled, within `timeout_s`."""
    timer = threading.Timer(timeout_s, os._exit, [exit_code])
    timer.daemon = True
    timer.start()
    return timer


def _say(exit_code: int, reason: str) -> None:
    log.critical("worker_left", reason=reason, exit_code=exit_code)
    if exit_code == EXIT_ZOMBIE:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
