"""Keys of the prediction cache: a hash of everything that determines an answer, so that no two answers share a key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output
from inferd.streams.inference.inputs import Inputs, Matrix, Table, rows_as_bytes
from inferd.streams.inference.registry import format_named

PREFIX_BYTES: Final = 8
KEY_BYTES: Final = 31
"""Prefix and hash. One byte more, and Python would need 16 bytes more for each."""
_FORMAT: Final = 1
"""To be raised with every change of what keys or values mean: entries of the other format are then never found."""


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys for one version with certain outputs.

    A key starts with a prefix per version, by which entries are found and freed. The rest is a hash of the row, keyed
    with everything else that determines an answer; that key is not secret. The hash is cryptographic (BLAKE2b, 184
    bits): clients choose the rows, and two colliding rows would get each other's answers. It takes 0.4 µs for a row of
    30 features, xxh3_128 would take 0.04 µs.
    """

    prefix: bytes
    seed: bytes
    """32 bytes."""
    equal_zeros: bool = True
    """Whether the model's answers for 0.0 and -0.0 are the same."""

    def keys(self, inputs: Inputs) -> list[bytes]:
        """The key of each row."""
        seeded = hashlib.blake2b(key=self.seed, digest_size=KEY_BYTES - PREFIX_BYTES)
        copy, prefix, keys = seeded.copy, self.prefix, []
        for row in rows_as_bytes(_canonical_inputs(inputs, equal_zeros=self.equal_zeros)):
            state = copy()
            state.update(row)
            keys.append(prefix + state.digest())
        return keys


def _canonical_inputs(inputs: Inputs, *, equal_zeros: bool) -> Inputs:
    """Makes numbers canonical; other values of a table have only one form."""
    if isinstance(inputs, Table):
        return replace(inputs, numbers=canonical(inputs.numbers, equal_zeros=equal_zeros))
    return canonical(inputs, equal_zeros=equal_zeros)


def canonical(matrix: Matrix, *, equal_zeros: bool = True) -> Matrix:
    """The matrix with one bit pattern per value: the same NaN for all NaNs, and 0.0 for -0.0.

    LightGBM does not distinguish the two zeros: it compares with thresholds, truncates categories to integers, calls
    `isnan`, and adds the terms of linear leaves to a sum that starts with 0.0.
    """
    with np.errstate(invalid="ignore"):  # signalling NaNs are handled correctly too
        clean = matrix + 0.0 if equal_zeros else matrix.copy()
    missing = np.isnan(clean)
    if missing.any():
        clean[missing] = np.nan
    return clean


def version_prefix(tenant: str, manifest: Manifest) -> bytes:
    """The prefix of all keys of a version. It only depends on fields that every manifest has."""
    identity = [_FORMAT, tenant, manifest.model_id, manifest.version, manifest.sha256]
    return hashlib.blake2b(msgspec.msgpack.encode(identity), digest_size=PREFIX_BYTES).digest()


def key_space(tenant: str, manifest: Manifest, outputs: tuple[Output, ...]) -> KeySpace:
    """The keys for a version, whose manifest is complete, with `outputs`.

    Fields of the manifest that do not change answers are excluded, so that a longer `ttl_s`, for example, does not
    empty the cache.
    """
    answering = msgspec.structs.replace(manifest, cache=None, warmup=None, labels=None, created_at=None)
    model_format = format_named(manifest.runtime)
    seed = msgspec.msgpack.encode([_FORMAT, tenant, answering, outputs, model_format.library_version()])
    digest = hashlib.blake2b(seed, digest_size=32).digest()
    return KeySpace(version_prefix(tenant, manifest), digest, model_format.equal_zeros)
