"""The attributes of events, and their checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inferd.schemas.errors import InferenceError

Attribute = str | bool | int
SPEC_VERSION = "1.0"
REQUIRED = ("specversion", "id", "source", "type")
PREDICTION_TYPE = "ai.inferd.prediction.v1"
ERROR_TYPE = "ai.inferd.error.v1"
TYPES = (PREDICTION_TYPE, ERROR_TYPE)
"""The types of results."""
_TEXTS = frozenset((*REQUIRED, "subject", "datacontenttype", "dataschema", "time"))
"""The attributes of the specification; all others are extensions."""
RELATED = "relatedid"
"""The extension of results that has the id of the request."""
_OF_DATA = ("data", "dataref", "datacontentencoding")
"""Extensions that describe the data, as `dataref` does: where it is."""
EXTENSIONS_BYTES_MAX = 16_384
"""Names and values of the extensions that a result has from its request; as many bytes as of other headers."""
_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def is_event(names: Iterable[str]) -> bool:
    """Whether headers `ce_<name>` make a record an event: one of the required attributes is there.

    `ce_id` alone does not: a result has it as `ce_relatedid`, whether or not the request is an event.
    """
    return not {"specversion", "source", "type"}.isdisjoint(names)


def text_of(value: Attribute) -> str:
    """An attribute as text, in the canonical form of the specification."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def extensions(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The extensions of a request that its result has, too: those that say nothing of the data, while they fit.

    The specification asks intermediaries to forward extensions that they do not know, such as those of a trace.
    """
    left, kept = EXTENSIONS_BYTES_MAX, dict[str, Attribute]()
    for name, value in attributes.items():
        if name in _TEXTS or name in _OF_DATA or name == RELATED:
            continue
        size = len(name) + len(text_of(value).encode())
        if size <= left:
            kept[name] = value
            left -= size
    return kept


def check_attributes(attributes: Mapping[str, Attribute], error: type[InferenceError]) -> None:
    """Raises `error` for attributes that no event of version 1.0 has."""
    for name in REQUIRED:
        if attributes.get(name, "") == "":
            raise error(f"CloudEvent: the attribute {name} is missing or empty")
    if attributes["specversion"] != SPEC_VERSION:
        raise error(f"CloudEvent: specversion {str(attributes['specversion'])[:40]!r}; only {SPEC_VERSION!r} is known")
    for name, value in attributes.items():
        if name in _TEXTS:
            if not isinstance(value, str) or not value:
                raise error(f"CloudEvent: the attribute {name} is not a string, or is empty")
        elif not _NAME.fullmatch(name):
            raise error(f"CloudEvent: attribute {name[:40]!r}: names have only the characters a-z and 0-9")
    time = attributes.get("time")
    if time is not None and not _TIME.fullmatch(str(time)):
        raise error(f"CloudEvent: time {str(time)[:40]!r} is not a timestamp of RFC 3339")
