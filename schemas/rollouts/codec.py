"""Encodes and decodes messages and statuses of rollouts."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_size, decode_error, structural_fault
from inferd.schemas.errors import InvalidIdError, InvalidValueError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import CHANGED_BY_CHARS_MAX, check_model_name
from inferd.schemas.rollouts.guards import parse_guards
from inferd.schemas.rollouts.rollout import RolloutMessage, RolloutStatus, StartRollout
from inferd.schemas.rollouts.steps import REQUESTS_MAX, parse_steps

MESSAGE_BYTES_MAX = 65_536
STATUS_BYTES_MAX = 262_144
"""Targets with splits do not occur in a rollout, so that a status is far smaller."""
_MESSAGE = Decoders(RolloutMessage)
_STATUS = Decoders(RolloutStatus)
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DEPTH_MAX = DEFAULT_LIMITS.depth_max
_REVISION_MAX = 2**53
_VERSION_MAX = 999_999_999


def decode_rollout_message(
    value: bytes | None, codec: Codec = MSGPACK, limits: Limits = DEFAULT_LIMITS
) -> RolloutMessage:
    """Decode and check a message.

    `TooLargeError`, `MalformedError` or `TooDeepError` for bytes that are none; `InvalidIdError` for its id or alias;
    `InvalidValueError` for steps, guards and numbers that are not allowed.
    """
    data = check_size(value, min(MESSAGE_BYTES_MAX, limits.message_bytes_max), "rollout message")
    message: RolloutMessage = _decoded(data, codec, _MESSAGE, "rollout message")
    _check(message)
    return message


def encode_rollout_message(message: RolloutMessage, codec: Codec = MSGPACK) -> bytes:
    """Encode a message; raises the errors of `decode_rollout_message`."""
    try:
        value = codec.encode(message)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"rollout message cannot be sent as {codec.name}: {error}") from None
    decode_rollout_message(value, codec)
    return value


def decode_rollout_status(value: bytes | None, codec: Codec = MSGPACK) -> RolloutStatus:
    """Decode a status. Unknown fields are ignored, so that older clients keep working.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    data = check_size(value, STATUS_BYTES_MAX, "rollout status")
    status: RolloutStatus = _decoded(data, codec, _STATUS, "rollout status")
    return status


def encode_rollout_status(status: RolloutStatus, codec: Codec = MSGPACK) -> bytes:
    """Encode a status."""
    return codec.encode(status)


def parse_rollout_key(key: bytes | None) -> str:
    """The model in the key of a record; `MalformedError` if it is none."""
    text = (key or b"").decode("utf-8", "backslashreplace")
    try:
        return check_model_name(text)
    except InvalidIdError:
        raise MalformedError(f"key {text[:80]!r} of a rollouts record: expected the name of a model") from None


def _decoded(data: bytes, codec: Codec, decoders: Decoders, what: str) -> Any:
    if fault := structural_fault(data, codec, _DEPTH_MAX, values_max=len(data)):
        raise type(fault)(f"{what}: {fault.message}")
    try:
        return decoders[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, what, _DEPTH_MAX) from None


def _check(message: RolloutMessage) -> None:
    _check_id("id", message.id)
    if message.by is not None and len(message.by) > CHANGED_BY_CHARS_MAX:
        raise InvalidValueError(f"by: {len(message.by)} characters; at most {CHANGED_BY_CHARS_MAX} are allowed")
    if not isinstance(message, StartRollout):
        if message.rollout is not None:
            _check_id("rollout", message.rollout)
        return
    check_model_name(message.alias)
    _check_range("to", message.to, 1, _VERSION_MAX)
    _check_range("requests_min", message.requests_min, 0, REQUESTS_MAX)
    _check_range("guard_requests_min", message.guard_requests_min, 1, REQUESTS_MAX)
    if message.revision is not None:
        _check_range("revision", message.revision, 0, _REVISION_MAX)
    parse_steps(message.steps)
    parse_guards(message.guards)


def _check_id(what: str, text: str) -> None:
    if not _ID.fullmatch(text):
        raise InvalidIdError(f"{what} {text[:80]!r} of a rollout message: expected 32 of 0-9 a-f")


def _check_range(what: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise InvalidValueError(f"{what}: {number} is not in {least}..{most}")


def normalised(message: StartRollout) -> StartRollout:
    """The message with steps and guards in the form in which they are shown."""
    return msgspec.structs.replace(
        message,
        steps=[str(step) for step in parse_steps(message.steps)],
        guards=[str(guard) for guard in parse_guards(message.guards)],
    )
