"""When the certificates of a PEM file expire.

The standard library has no reader of certificates; this one walks the DER encoding up to the field `validity` (RFC
5280, section 4.1).
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_FIELDS_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm, issuer."""


def expiries(path: Path) -> list[datetime]:
    """When each certificate of the file expires, in order. Raises `OSError` or `ValueError` for unusable files."""
    return [expiry(ssl.PEM_cert_to_DER_cert(pem)) for pem in _PEM.findall(path.read_text(encoding="ascii"))]


def expiry(der: bytes) -> datetime:
    """When a certificate expires. Raises `ValueError` if it is malformed."""
    try:
        _, certificate, _ = _element(der)
        _, fields, _ = _element(certificate)
        if fields[0] == _VERSION:
            *_, fields = _element(fields)
        for _ in range(_FIELDS_BEFORE_VALIDITY):
            *_, fields = _element(fields)
        _, validity, _ = _element(fields)
        *_, rest = _element(validity)
        tag, not_after, _ = _element(rest)
    except IndexError:
        raise ValueError("the certificate is malformed") from None
    text = not_after.decode("ascii")
    if tag == _UTC_TIME:  # its years have two digits, 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first DER element, and what follows it."""
    length, start = data[1], 2
    if length >= 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start])
    if len(data) < start + length:
        raise IndexError
    return data[0], data[start : start + length], data[start + length :]
