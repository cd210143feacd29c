"""When certificates expire, compared with `cryptography`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.certificates import expiries, expiry
from inferd.daemon.checks.machine import check_certificates
from inferd.daemon.settings.settings import Settings

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def certificate(until: datetime, name: str = "x") -> bytes:
    """In PEM."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=1))
        .not_valid_after(until)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@given(
    st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001  (a zone is added)
    st.text("abc", min_size=1, max_size=60),
)
def test_the_expiry_is_the_one_of_the_certificate(until: datetime, name: str) -> None:
    until = until.replace(microsecond=0, tzinfo=UTC)
    pem = certificate(until, name)
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert expiry(der) == until


@given(st.binary(max_size=300))
def test_other_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        expiry(data)


def test_every_certificate_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "chain.pem"
    path.write_bytes(b"# first\n" + certificate(NOW) + b"# second\n" + certificate(NOW + timedelta(1)))
    assert expiries(path) == [NOW, NOW + timedelta(1)]
    path.write_text("none")
    assert expiries(path) == []


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [(400, "ok", "400 days"), (9.5, "warn", "expires in 9 days"), (-1, "fail", "expired on")],
)
def test_doctor_says_what_expires(tmp_path: Path, days: float, state: str, words: str) -> None:
    paths = {}
    for name in ("https_certfile", "kafka_ssl_certfile"):
        paths[name] = tmp_path / name
        paths[name].write_bytes(certificate(NOW + timedelta(days)))
    settings = Settings.from_environment({}, {name: str(path) for name, path in paths.items()})
    checks = check_certificates(settings, NOW)
    assert [check.state for check in checks] == [state, state]
    assert words in checks[0].detail
    assert "INFERD_KAFKA_SSL_CERTFILE" in checks[0].detail
    assert "INFERD_HTTPS_CERTFILE" in checks[1].detail


def test_doctor_says_nothing_without_certificates() -> None:
    assert check_certificates(Settings.from_environment({}), NOW) == []
