"""Results of shadow versions, which score requests once another version has answered them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

SHADOW_VARIANT: Final = b"shadow"
"""The value of the header `inferd-variant` of records of `shadow-results`."""


class ShadowResult(msgspec.Struct, frozen=True):
    """What a shadow version says about a request, beside what was answered. Always JSON; null for numbers that are not
    finite."""

    id: str
    model_id: str
    champion_version: int
    """The version that answered; of a split, the one that the request's key chose."""
    shadow_version: int
    champion: dict[str, Any]
    """Outputs of the answer that both versions have: one value each, or a list of one value a row."""
    shadow: dict[str, Any]
    """The same outputs of the shadow version."""
    differing_rows: int | None = None
    """Rows whose predictions disagree; None if they cannot be compared."""


encode_shadow_result = msgspec.json.Encoder().encode
"""Encodes a `ShadowResult`."""
decode_shadow_result = msgspec.json.Decoder(ShadowResult).decode
"""Decodes a `ShadowResult`; raises `msgspec.DecodeError`."""
