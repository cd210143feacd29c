"""Results of one model version as bytes: the parts that are the same for every request are encoded once.

Gives the same bytes as `inferd.schemas.codec.encode_result`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from inferd.schemas.headers import Encoding
from inferd.schemas.models import Manifest
from inferd.schemas.requests import Output

_encode_msgpack = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


class ResultTemplate:
    """`render(request_id, values)` is a result of this version, with these outputs, in this encoding."""

    def __init__(self, manifest: Manifest, outputs: Sequence[Output], encoding: Encoding) -> None:
        constants = {"model_id": manifest.model_id, "version": manifest.version, "digest": manifest.sha256}
        self._outputs = tuple(outputs)
        self._encode: Callable[[Any], bytes] = _encode_msgpack if encoding == "msgpack" else _encode_json
        if encoding == "msgpack":
            self._head, after_id, self._keys, self._tail = _msgpack_parts(constants, self._outputs)
        else:
            self._head, after_id, self._keys, self._tail = _json_parts(constants, self._outputs)
        self._keys[0] = after_id + self._keys[0]

    def render(self, request_id: str, values: Iterable[Any]) -> bytes:
        """The bytes of a result; `values` in the order of the outputs."""
        encode = self._encode
        parts = [self._head, encode(request_id)]
        for key, value in zip(self._keys, values, strict=True):
            parts.append(key)
            parts.append(encode(value))
        parts.append(self._tail)
        return b"".join(parts)

    def render_column(self, ids: Sequence[str], values: Sequence[Any]) -> list[bytes]:
        """The results of requests with one output: `render`, for a whole micro-batch."""
        encode, head, key, tail = self._encode, self._head, self._keys[0], self._tail
        return [head + encode(each) + key + encode(value) + tail for each, value in zip(ids, values, strict=True)]


def _msgpack_parts(constants: dict[str, Any], outputs: tuple[Output, ...]) -> tuple[bytes, bytes, list[bytes], bytes]:
    # Up to 15 entries share the one-byte map header; there are 4 constants and at most 5 outputs.
    head = bytes([0x80 | (1 + len(constants) + len(outputs))]) + _encode_msgpack("id")
    after_id = b"".join(_encode_msgpack(key) + _encode_msgpack(value) for key, value in constants.items())
    return head, after_id, [_encode_msgpack(output) for output in outputs], b""


def _json_parts(constants: dict[str, Any], outputs: tuple[Output, ...]) -> tuple[bytes, bytes, list[bytes], bytes]:
    after_id = b"".join(b"," + _encode_json(key) + b":" + _encode_json(value) for key, value in constants.items())
    return b'{"id":', after_id, [b"," + _encode_json(output) + b":" for output in outputs], b"}"
