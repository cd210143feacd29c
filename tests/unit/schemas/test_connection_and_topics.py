from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import InvalidIdError
from inferd.schemas.requests.request import ModelReference, default_id
from inferd.schemas.topics import STREAMS, Stream, TenantTopics, tenant_of_topic


def test_topics_of_a_tenant() -> None:
    topics = TenantTopics("inferd", "default")
    assert [topics.name(stream) for stream in STREAMS[:3]] == [
        "inferd.default.requests",
        "inferd.default.results",
        "inferd.default.dead-letters",
    ]


@pytest.mark.parametrize("stream", STREAMS)
def test_the_tenant_of_a_topic(stream: Stream) -> None:
    assert tenant_of_topic(TenantTopics("inferd", "acme").name(stream)) == "acme"


@pytest.mark.parametrize("topic", ["", "requests", "acme.requests", "a.b.c.d"])
def test_a_topic_of_another_form_has_no_tenant(topic: str) -> None:
    with pytest.raises(InvalidIdError, match="<namespace>"):
        tenant_of_topic(topic)


@pytest.mark.parametrize("name", ["", "a.b", "A", "-a", "_a", "a" * 64, "a\n", "ä"])
def test_a_part_that_could_reach_into_another_prefix(name: str) -> None:
    with pytest.raises(InvalidIdError, match="namespace"):
        TenantTopics(name, "default")
    with pytest.raises(InvalidIdError, match="tenant"):
        TenantTopics("inferd", name)


@pytest.mark.parametrize("text", ["m", "m:3", "m@champion", "a.b-c_D:999999999"])
def test_a_reference_spells_itself(text: str) -> None:
    assert str(ModelReference.parse(text)) == text


def test_the_default_id_is_partition_and_offset() -> None:
    assert default_id(2, 17) == "2-17"


def test_a_plain_connection() -> None:
    assert KafkaConnection("a:1,b:2").aiokafka_options() == {
        "bootstrap_servers": "a:1,b:2",
        "security_protocol": "PLAINTEXT",
    }


def test_a_connection_with_password_and_tls() -> None:
    connection = KafkaConnection(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="p"
    )
    options = connection.aiokafka_options()
    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert options == {
        "bootstrap_servers": "127.0.0.1:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }


def test_a_missing_certificate(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KafkaConnection(security_protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem")).ssl_context()
    with pytest.raises(FileNotFoundError):
        KafkaConnection(security_protocol="SSL", ssl_certfile=str(tmp_path / "cert.pem")).ssl_context()
