"""Encodes and decodes manifests and aliases."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, MSGPACK, Codec, Decoders, check_size, decode_error, structural_fault
from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    MalformedError,
    SchemaMismatchError,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models.manifest_checks import check_alias, check_manifest, check_target
from inferd.schemas.models.model import Alias, AliasTarget, Manifest
from inferd.schemas.requests import ListRows, decode_input_data

ModelRecord = TypeVar("ModelRecord", Manifest, Alias, AliasTarget)
_DEPTH_MAX = DEFAULT_LIMITS.depth_max
_DECODERS = {Manifest: Decoders(Manifest), Alias: Decoders(Alias), AliasTarget: Decoders(AliasTarget)}


def decode_manifest(value: bytes | None, limits: Limits = DEFAULT_LIMITS, codec: Codec = MSGPACK) -> Manifest:
    """Decode and check a manifest (see `check_manifest`); its warm-up rows are checked like those of a request.

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    manifest = _decode(value, Manifest, "manifest", limits, codec)
    check_manifest(manifest, limits)
    if manifest.warmup is not None:
        _check_warmup(manifest.warmup, len(manifest.features), limits)
    return manifest


def encode_manifest(manifest: Manifest, codec: Codec = MSGPACK, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Encode a manifest; equal manifests give equal bytes. Raises the errors of `decode_manifest`."""
    value = _encode(manifest, codec)
    decode_manifest(value, limits, codec)
    return value


def decode_alias(value: bytes | None, limits: Limits = DEFAULT_LIMITS, codec: Codec = MSGPACK) -> Alias:
    """Decode and check an alias (see `check_alias`).

    `TooLargeError`, `MalformedError` or `TooDeepError` if it is invalid.
    """
    return check_alias(_decode(value, Alias, "alias", limits, codec))


def decode_target(value: bytes | None, limits: Limits = DEFAULT_LIMITS, codec: Codec = MSGPACK) -> AliasTarget:
    """Decode and check the target of an alias, which has no revision or history yet; raises as `decode_alias` does."""
    return check_target(_decode(value, AliasTarget, "alias", limits, codec))


def encode_alias(alias: Alias, codec: Codec = MSGPACK, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Encode an alias; equal aliases give equal bytes. Raises the errors of `decode_alias`."""
    value = _encode(alias, codec)
    decode_alias(value, limits, codec)
    return value


def _decode(value: bytes | None, type_: type[ModelRecord], what: str, limits: Limits, codec: Codec) -> ModelRecord:
    data = check_size(value, limits.manifest_bytes_max, what)
    # These records are bounded by their bytes, not by the settings for requests.
    if fault := structural_fault(data, codec, _DEPTH_MAX, values_max=len(data)):
        raise type(fault)(f"{what}: {fault.message}")
    try:
        record: ModelRecord = _DECODERS[type_][codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, what, _DEPTH_MAX) from None
    return record


def _encode(record: msgspec.Struct, codec: Codec) -> bytes:
    try:
        return codec.encode_sorted(record)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidValueError(f"{type(record).__name__.lower()} cannot be sent as {codec.name}: {error}") from None


def _check_warmup(rows: list[Any], n_features: int, limits: Limits) -> None:
    """Reject warm-up rows that are invalid as `input_data`. Scoring them checks their values against the features."""
    try:
        decoded = decode_input_data(MSGPACK.encode(rows), MSGPACK, limits)
    except (InferenceError, OverflowError) as error:
        raise MalformedError(f"warmup: {error}") from None
    if isinstance(decoded, ListRows):
        if decoded.single:
            raise MalformedError("warmup: expected a list of rows, got a single row")
        if decoded.rows and len(decoded.rows[0]) != n_features:
            raise SchemaMismatchError(
                f"warmup: rows of {len(decoded.rows[0])} values, but the model has {n_features} features"
            )
