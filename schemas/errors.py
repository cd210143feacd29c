"""The exception hierarchy and the table of error codes.

    ModelServingError
    ├── ServerError                      the process, its broker, its settings
    ├── BatchJobError
    │   ├── JobNotFoundError             job_not_found
    │   ├── JobConflictError             job_conflict
    │   ├── ChunkConflictError           chunk_conflict
    │   ├── JobClosedError               job_closed
    │   └── JobExpiredError              job_expired
    └── InferenceError
        ├── MalformedError               malformed
        ├── TooLargeError                too_large
        ├── TooDeepError                 too_deep
        ├── UnsupportedContentTypeError  unsupported_content_type
        ├── InvalidIdError               invalid_id
        ├── InvalidHeaderError           invalid_header
        ├── InvalidValueError            invalid_value
        ├── SchemaMismatchError          schema_mismatch
        ├── SchemaNotFoundError          schema_not_found
        ├── ModelNotFoundError           model_not_found
        ├── VersionNotFoundError         version_not_found
        ├── ModelNotReadyError           model_not_ready
        ├── DeadlineExceededError        deadline_exceeded
        ├── QuotaExceededError           quota_exceeded
        ├── ReplyToRefusedError          reply_to_refused
        └── InternalError                internal

A code never changes its meaning; the wording of a message is free.
"""

from __future__ import annotations

import sys
from typing import ClassVar

MESSAGE_CHARS_MAX = 512


class ModelServingError(Exception):
    """Base class of all errors; `message` says what is wrong, where, and what to do."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    meaning: ClassVar[str] = "something failed inside inferd"

    result_headers: tuple[tuple[str, bytes | None], ...] = ()
    """Headers of the result that has this error: which alias chose the version, if any."""

    def __init__(self, message: str) -> None:
        self.message = message if len(message) <= MESSAGE_CHARS_MAX else message[: MESSAGE_CHARS_MAX - 1] + "…"
        super().__init__(self.message)


class ServerError(ModelServingError):
    """The process cannot start, reach its broker, or run with its settings."""


class BatchJobError(ModelServingError):
    """A batch job is unknown, conflicts with another one, or has ended."""


class InferenceError(ModelServingError):
    """A request or a model cannot be scored."""


class MalformedError(InferenceError):
    code = "malformed"
    http_status = 400
    meaning = "the record is not one well-formed message of the expected fields and types"


class TooLargeError(InferenceError):
    code = "too_large"
    http_status = 413
    meaning = "bytes, rows, features or their product exceed a limit"


class TooDeepError(InferenceError):
    code = "too_deep"
    http_status = 400
    meaning = "containers are nested deeper than the limit"


class UnsupportedContentTypeError(InferenceError):
    code = "unsupported_content_type"
    http_status = 415
    meaning = "the content-type header names an encoding that is not supported"


class InvalidIdError(InferenceError):
    code = "invalid_id"
    http_status = 400
    meaning = "an id or a model reference does not follow its grammar"


class InvalidHeaderError(InferenceError):
    code = "invalid_header"
    http_status = 400
    meaning = "a record header is repeated, too large, or cannot be decoded"


class InvalidValueError(InferenceError):
    code = "invalid_value"
    http_status = 422
    meaning = "a value is outside what its feature or field allows"


class SchemaMismatchError(InferenceError):
    code = "schema_mismatch"
    http_status = 422
    meaning = "features are missing, unknown, repeated or of the wrong number"


class SchemaNotFoundError(InferenceError):
    code = "schema_not_found"
    http_status = 422
    meaning = "the record names a schema that the schema registry does not have"


class ModelNotFoundError(InferenceError):
    code = "model_not_found"
    http_status = 404
    meaning = "the tenant has no model of that name"


class VersionNotFoundError(InferenceError):
    code = "version_not_found"
    http_status = 404
    meaning = "the model has no such version or alias"


class ModelNotReadyError(InferenceError):
    code = "model_not_ready"
    http_status = 503
    retryable = True
    meaning = "the model version is known but not (yet) loaded"


class DeadlineExceededError(InferenceError):
    code = "deadline_exceeded"
    http_status = 504
    meaning = "the deadline of the request passed before it was scored"


class QuotaExceededError(InferenceError):
    code = "quota_exceeded"
    http_status = 429
    retryable = True
    meaning = "the tenant is over one of its quotas"


class ReplyToRefusedError(InferenceError):
    code = "reply_to_refused"
    http_status = 403
    meaning = "the reply-to topic is not on the tenant's allow-list, or rejects the result"


class InternalError(InferenceError):
    code = "internal"
    meaning = "scoring failed for a reason that is not the request's; the worker's log has the traceback"


class JobNotFoundError(BatchJobError):
    code = "job_not_found"
    http_status = 404
    meaning = "the tenant has no job of that id"


class JobConflictError(BatchJobError):
    code = "job_conflict"
    http_status = 409
    meaning = "another job was opened under the same id"


class ChunkConflictError(BatchJobError):
    code = "chunk_conflict"
    http_status = 409
    meaning = "the same sequence number arrived with other bytes"


class JobClosedError(BatchJobError):
    code = "job_closed"
    http_status = 409
    meaning = "the job has reached its terminal status"


class JobExpiredError(BatchJobError):
    code = "job_expired"
    http_status = 410
    meaning = "the results of the job are past their retention"


CODES: dict[str, type[ModelServingError]] = {
    cls.code: cls
    for cls in (
        MalformedError,
        TooLargeError,
        TooDeepError,
        UnsupportedContentTypeError,
        InvalidIdError,
        InvalidHeaderError,
        InvalidValueError,
        SchemaMismatchError,
        SchemaNotFoundError,
        ModelNotFoundError,
        VersionNotFoundError,
        ModelNotReadyError,
        DeadlineExceededError,
        QuotaExceededError,
        JobNotFoundError,
        JobConflictError,
        ChunkConflictError,
        JobClosedError,
        JobExpiredError,
        ReplyToRefusedError,
        InternalError,
    )
}
"""Error code to exception class; `docs/errors.md` is generated from it."""


def error_of_code(code: str, message: str) -> ModelServingError:
    """The exception for a received `code` and `message`; an unknown code becomes an `InternalError` that names it."""
    cls = CODES.get(code)
    return cls(message) if cls else InternalError(f"{code}: {message}")


def code_table() -> str:
    """The table of codes in Markdown, one line per code."""
    lines = ["| code | meaning | HTTP status | retryable |", "| --- | --- | --- | --- |"]
    for code, cls in CODES.items():
        lines.append(f"| `{code}` | {cls.meaning} | {cls.http_status} | {'yes' if cls.retryable else 'no'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(code_table())
