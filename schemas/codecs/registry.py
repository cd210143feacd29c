"""The registry of codecs. `docs/architecture.md` shows how to add one."""

from __future__ import annotations

from inferd.schemas.codecs.codec import Codec
from inferd.schemas.codecs.json import JSON
from inferd.schemas.codecs.msgpack import MSGPACK
from inferd.schemas.errors import MalformedError

_CODECS: dict[str, Codec] = {}
_BY_CONTENT_TYPE: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Adds a codec. `ValueError` if its name or its content type is taken."""
    if _CODECS.get(codec.name, codec) is not codec or _BY_CONTENT_TYPE.get(codec.content_type, codec) is not codec:
        raise ValueError(f"codec {codec.name!r} ({codec.content_type}) is registered already")
    _CODECS[codec.name] = _BY_CONTENT_TYPE[codec.content_type] = codec


def unregister(name: str) -> None:
    """Removes a codec."""
    del _BY_CONTENT_TYPE[_CODECS.pop(name).content_type]


def all_codecs() -> tuple[Codec, ...]:
    """All codecs. The first is that of records without a content-type."""
    return tuple(_CODECS.values())


def content_types() -> tuple[str, ...]:
    """The content types of all codecs."""
    return tuple(_BY_CONTENT_TYPE)


def codec_named(name: str) -> Codec:
    """The codec that stored state calls `name`; `MalformedError` if there is none."""
    try:
        return _CODECS[name]
    except KeyError:
        raise MalformedError(f"encoding {name[:80]!r} is unknown; known are {', '.join(_CODECS)}") from None


def codec_of(content_type: str) -> Codec | None:
    """The codec of a media type in lower case, without parameters."""
    return _BY_CONTENT_TYPE.get(content_type)


register(MSGPACK)
register(JSON)
