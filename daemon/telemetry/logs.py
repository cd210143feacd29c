"""Logs: structlog on standard error, as JSON or for a console, including the logs of libraries.

Untrusted text is escaped, tracebacks contain no values of variables, and repeated messages are counted.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from inferd.daemon.printable import printable
from inferd.daemon.settings import LogFormat, LogLevel
from inferd.daemon.telemetry.log_repeats import KEYS_MAX, MessageKey, RepeatLimiter

TRACEBACK_CHARS_MAX = 20_000
DEPTH_MAX = 4
REPEATED = "repeated"
TEMPLATE = "_template"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
COMMAND_LEVELS = (logging.CRITICAL, logging.INFO, logging.DEBUG)


def configure_logs(
    log_format: LogFormat,
    level: LogLevel,
    worker_id: str,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[], None]:
    """Configures logging of the process. Call the returned function periodically: it logs the counts of repeats."""
    repeats = _LimitRepeats(RepeatLimiter(), clock)
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        repeats,
        _BindWorker(worker_id),
    ]
    _configure(first, log_format, LEVELS[level], foreign_level=max(LEVELS[level], logging.WARNING))
    return repeats.log_counts


def configure_for_command(verbose: int) -> None:
    """Configures logging of a short-lived command: only with `--verbose`, never on standard output."""
    level = COMMAND_LEVELS[min(verbose, len(COMMAND_LEVELS) - 1)]
    _configure(
        [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _drop_template], "console", level, level
    )


def _configure(first: list[Processor], log_format: LogFormat, level: int, foreign_level: int) -> None:
    structlog.configure(
        processors=[
            *first,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape,
            _renderer(log_format, sys.stderr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(foreign_level)
    logging.captureWarnings(True)


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format == "json" or (log_format == "auto" and not stream.isatty()):
        return _to_json
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


def _to_json(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event} | dict(event)
    return msgspec.json.encode(ordered, enc_hook=repr).decode()


class _StderrLogger:
    """Writes lines to the current `sys.stderr`; a closed pipe is ignored."""

    def __init__(self, *args: Any) -> None:
        self.name = str(args[0]) if args else "inferd"

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(message + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


class _ToStructlog(logging.Handler):
    """Forwards records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message, exc_info = record.getMessage(), record.exc_info
            if exc_info and exc_info[1] is not None and _is_retried(record):
                message, exc_info = (
                    f"{message}: {exc_info[1]!r:.200}",
                    None,
                )  # omit the stack, which is in the library
            structlog.get_logger(record.name).log(
                _level_of(record),
                message,
                **{TEMPLATE: str(record.msg)},
                **({"exc_info": exc_info} if exc_info else {}),
            )
        except Exception:  # noqa: BLE001 (logging must not raise)
            self.handleError(record)


def _is_abandoned(record: logging.LogRecord) -> bool:
    """Whether asyncio reports a failed task of aiokafka whose exception was never retrieved."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name == "asyncio" and error is not None and type(error).__module__ == "aiokafka.errors"


def _level_of(record: logging.LogRecord) -> int:
    if _is_abandoned(record) or _waits_for_a_marker(record):
        return logging.DEBUG
    if record.name.startswith("aiokafka") or _is_retried(record):
        # aiokafka logs failures that it retries as errors, and raises those that it does not retry.
        return min(record.levelno, logging.WARNING)
    known = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return next((level for level in known if record.levelno >= level), logging.DEBUG)


def _is_retried(record: logging.LogRecord) -> bool:
    """Whether the failure was in one of aiokafka's own tasks or callbacks: it retries, or raises the error to the
    caller."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not (record.name == "asyncio" or record.name.startswith("aiokafka")):
        return False
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return type(error).__module__ == "aiokafka.errors" or "".join(raised_in[-1:]).startswith("aiokafka.")


def _waits_for_a_marker(record: logging.LogRecord) -> bool:
    """Whether the first records of a transaction are retried: Kafka 4 rejects them while it ends the previous one."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return any(getattr(argument, "__name__", "") == "NotEnoughReplicasError" for argument in arguments)


class _LimitRepeats:
    def __init__(self, limiter: RepeatLimiter, clock: Callable[[], float]) -> None:
        self._limiter = limiter
        self._clock = clock
        self._texts: OrderedDict[MessageKey, str] = OrderedDict()
        """The last text of each message, logged with its count: the template alone lacks the arguments."""

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        if event.get("event") == REPEATED:
            return event
        key = _message_key(event)
        self._texts[key] = str(event.get("event"))
        if len(self._texts) > KEYS_MAX:
            self._texts.popitem(last=False)
        if not self._limiter.admit(key, self._clock()):
            raise structlog.DropEvent
        return event

    def log_counts(self) -> None:
        """Logs the counts of windows that have ended."""
        for key, times in self._limiter.due(self._clock()):
            structlog.get_logger(key.logger).log(
                LEVELS.get(key.level, logging.ERROR),
                REPEATED,
                message=self._texts.get(key, key.event),
                times=times,
                within_s=self._limiter.window_s,
            )


def _message_key(event: EventDict) -> MessageKey:
    template = event.pop(TEMPLATE, None)
    name = str(event.get("event"))
    place = str(event.get("logger")), str(event.get("level"))
    if template is not None:
        return MessageKey(*place, template, "")
    fields = repr(sorted((key, repr(value)) for key, value in event.items() if key != "exc_info"))
    return MessageKey(*place, name, fields)


class _BindWorker:
    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event["worker"] = self._worker_id
        return event


def _drop_template(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    event.pop(TEMPLATE, None)
    return event


def _escape(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    return {key: _escaped_lines(value) if key == "exception" else _escaped(value) for key, value in event.items()}


def _escaped_lines(text: str) -> str:
    lines = text[-TRACEBACK_CHARS_MAX:].split("\n")
    return "\n".join(printable(line) for line in lines)


def _escaped(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, Mapping):
        return {printable(str(key)): _escaped(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_escaped(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    return printable(repr(value) if isinstance(value, BaseException) else str(value))
