"""Settings: parsing, error messages, and completeness."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.settings.checks import check_connection, check_worker, worker_warnings
from inferd.daemon.settings.settings import Settings, settings_table
from inferd.daemon.settings.table import SettingsError
from inferd.schemas.limits import LARGEST_JOB_LIMITS, Limits
from inferd.streams.settings import (
    GroupSettings,
    LaneSettings,
    TopicSettings,
    TrialSettings,
)


def problems(environ: dict[str, str], **flags: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        check_worker(Settings.from_environment(environ, flags))
    return refused.value.problems


def test_defaults_are_valid() -> None:
    settings = check_worker(Settings.from_environment({}))
    assert settings.broker is None
    assert settings.connection().bootstrap_servers == "127.0.0.1:9092"
    assert settings.http_host == "127.0.0.1"
    assert settings.worker_id


def test_defaults_are_those_of_the_streams() -> None:
    streams = Settings.from_environment({}).streams()
    assert streams.lane == LaneSettings()
    assert streams.group == GroupSettings()
    assert streams.topics == TopicSettings()
    assert streams.trial == TrialSettings()
    assert streams.limits == Limits()


@pytest.mark.parametrize(
    ("variable", "text", "part", "name", "value"),
    [
        ("INFERD_TENANTS", "acme, default", "", "tenants", ("acme", "default")),
        ("INFERD_BATCH_ROWS_MAX", "7", "lane", "batch_rows_max", 7),
        ("INFERD_SESSION_TIMEOUT_S", "6.5", "group", "session_timeout_s", 6.5),
        ("INFERD_TOPIC_PARTITIONS", "12", "topics", "partitions", 12),
        ("INFERD_TOPICS_CREATE", "off", "topics", "create", False),
        ("INFERD_TRIAL_TIMEOUT_S", "9", "trial", "timeout_s", 9.0),
        ("INFERD_ROWS_MAX", "5", "limits", "rows_max", 5),
        ("INFERD_MODEL_TYPES_ALLOWED", "a.B, c.d.E", "limits", "types_allowed", ("a.B", "c.d.E")),
        ("INFERD_REPLY_TO_ALLOWED", "a.b,c", "", "reply_to_allowed", ("a.b", "c")),
        ("INFERD_ROUTES_SOURCES", "acme=a.*, b", "routes", "sources", ("acme=a.*", "b")),
    ],
)
def test_a_variable_reaches_the_streams(variable: str, text: str, part: str, name: str, value: object) -> None:
    streams = Settings.from_environment({variable: text}).streams()
    holder = getattr(streams, part) if part else streams
    assert getattr(holder, name) == value


def test_every_field_of_the_streams_is_a_setting_of_its_own() -> None:
    """A limit that is added to the streams must be a setting, or be listed here with a reason."""
    fixed = {
        "connection",  # built from the INFERD_BROKER and INFERD_KAFKA settings
        "id_chars_max",  # part of the grammar of ids
        "artifact_part_bytes_max",  # part of the wire contract
        "manifest_bytes_max",  # limited by Kafka's maximum record size
        "key_bytes_max",  # the rest of a record with the largest result
    }
    given: dict[str, Any] = {item.name: object() for item in fields(Settings)}
    streams = Settings(**given).streams()
    parts: list[Any] = [
        streams,
        streams.limits,
        streams.lane,
        streams.group,
        streams.topics,
        streams.routes,
        streams.trial,
        streams.models,
        streams.cache,
        streams.monitor,
        streams.quota,
        streams.schema_registry,
    ]
    values = {(type(part).__name__, item.name): getattr(part, item.name) for part in parts for item in fields(part)}
    values = {name: value for name, value in values.items() if value not in parts and name[1] not in fixed}
    assert {name for name, value in values.items() if value not in given.values()} == set()
    assert len(set(values.values())) == len(values)


def test_flags_override_variables() -> None:
    settings = Settings.from_environment({"INFERD_HTTP_PORT": "1", "INFERD_NAMESPACE": "x"}, {"http_port": "2"})
    assert (settings.http_port, settings.namespace) == (2, "x")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_environment({"INFERD_INSTANCE_ID": "", "INFERD_HTTP_PORT": ""}).instance_id is None


def test_one_line_for_each_wrong_setting() -> None:
    lines = problems({"INFERD_HTTP_PORT": "99999", "INFERD_TENANTS": "a,,b"}, rows_max="-1")
    assert sorted(lines) == [
        "--rows-max=-1 is not allowed: it must be a whole number from 1 to 10,000,000",
        "INFERD_HTTP_PORT=99999 is not allowed: it must be a whole number from 0 to 65,535",
        "INFERD_TENANTS=a,,b is not allowed: it must be different names separated by commas, each 1 to 63 of"
        " a-z 0-9 _ -, not starting with _ or -",
    ]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("INFERD_BROKER", "kafka"),
        ("INFERD_BROKER", "kafka:0"),
        ("INFERD_BROKER", "kafka:9092,"),
        ("INFERD_BROKER", "PLAINTEXT://kafka:9092"),
        ("INFERD_NAMESPACE", "in.ferd"),
        ("INFERD_TENANTS", "a,a"),
        ("INFERD_TENANTS", "../a"),
        ("INFERD_TENANTS", "аcme"),
        ("INFERD_DRAIN_TIMEOUT_S", "nan"),
        ("INFERD_DRAIN_TIMEOUT_S", "inf"),
        ("INFERD_HTTP_PORT", "8080.0"),
        ("INFERD_HTTP_PORT", "٨٠٨٠"),
        ("INFERD_INSECURE_HTTP", "maybe"),
        ("INFERD_PROCESSING_GUARANTEE", "EXACTLY_ONCE"),
        ("INFERD_KAFKA_SSL_CAFILE", "/nowhere/ca.pem"),
        ("INFERD_DATA_DIR", "/dev/null"),
        ("INFERD_WORKER_ID", "a\nb"),
        ("INFERD_REPLY_TO_ALLOWED", "a b"),
        ("INFERD_MODEL_TYPES_ALLOWED", "Estimator"),
    ],
)
def test_invalid_values_are_rejected(variable: str, text: str) -> None:
    (line,) = problems({variable: text})
    assert line.startswith(f"{variable}=")
    assert "it must be" in line
    assert line.isprintable()


@pytest.mark.parametrize("text", ["kafka:9092", "10.0.0.1:9092, [::1]:9093", "a.b-c:1"])
def test_valid_addresses_are_accepted(text: str) -> None:
    assert Settings.from_environment({"INFERD_BROKER": text}).broker == text.replace(" ", "")


@given(st.sampled_from([info for info in settings_table() if info.flag]), st.text(max_size=40))
def test_any_text_is_parsed_or_rejected_by_name(info: object, text: str) -> None:
    chosen = next(known for known in settings_table() if known is info)
    lines: tuple[str, ...] = ()
    try:
        Settings.from_environment({}, {chosen.field: text})
    except SettingsError as error:
        lines = error.problems
    assert len(lines) <= 1
    assert all(line.startswith(f"{chosen.flag}=") and line.isprintable() for line in lines)


def test_documented_defaults_are_valid() -> None:
    for info in settings_table():
        if info.shown_default and not info.shown_default.startswith("<"):
            info.kind.read(info.shown_default)


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    assert problems({"INFERD_BROKR": "x"}) == ("INFERD_BROKR is not a setting: did you mean INFERD_BROKER?",)
    assert problems({"INFERD_PORT": "1"})[0].startswith("INFERD_PORT is not a setting: did you mean INFERD_")


def test_names_of_the_tests_and_of_kubernetes_are_ignored() -> None:
    Settings.from_environment({"INFERD_TEST_BROKER": "x", "OTHER": "y"})
    links = {
        "INFERD_PORT": "tcp://10.0.0.1:8080",
        "INFERD_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "INFERD_PORT_8080_TCP_ADDR": "10.0.0.1",
        "INFERD_SERVICE_HOST": "10.0.0.1",
        "INFERD_SERVICE_PORT_HTTP": "8080",
    }
    Settings.from_environment(links | {"KUBERNETES_SERVICE_HOST": "10.0.0.2"})
    assert len(problems(links)) == len(links)
    assert len(problems({"INFERD_PORT": "8080", "KUBERNETES_SERVICE_HOST": "10.0.0.2"})) == 1


def test_secrets_are_never_shown() -> None:
    environ = {
        "INFERD_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "INFERD_KAFKA_SASL_USERNAME": "u",
        "INFERD_KAFKA_SASL_PASSWORD": "geheim",
    }
    settings = check_worker(Settings.from_environment(environ))
    assert settings.connection().sasl_password == "geheim"
    assert "geheim" not in repr(settings)
    del environ["INFERD_KAFKA_SECURITY_PROTOCOL"]
    assert not any("geheim" in line for line in problems(environ))
    assert not any(info.flag for info in settings_table() if info.kind.name == "secret")


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"INFERD_HEARTBEAT_INTERVAL_S": "4"},
            "INFERD_HEARTBEAT_INTERVAL_S=4 is not allowed: it must be at most a third of INFERD_SESSION_TIMEOUT_S=10",
        ),
        (
            {"INFERD_SESSION_TIMEOUT_S": "30"},
            "INFERD_SESSION_TIMEOUT_S=30 is not allowed: it must be at most INFERD_REQUEST_TIMEOUT_S=20",
        ),
        (
            {"INFERD_DRAIN_TIMEOUT_S": "2"},
            "INFERD_REVOKE_TIMEOUT_S=3 is not allowed: it must be at most INFERD_DRAIN_TIMEOUT_S=2",
        ),
        (
            {"INFERD_INLINE_MS_MAX": "1001"},
            "INFERD_INLINE_MS_MAX=1001 is not allowed: it must be at most the milliseconds of"
            " INFERD_HEARTBEAT_INTERVAL_S=1",
        ),
        (
            {"INFERD_BATCH_BYTES_MAX": "4096"},
            "INFERD_MESSAGE_BYTES_MAX=1048576 is not allowed: it must be at most INFERD_BATCH_BYTES_MAX=4096",
        ),
        (
            {"INFERD_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "INFERD_KAFKA_SASL_USERNAME": "u"},
            "INFERD_KAFKA_SASL_PASSWORD is not set: INFERD_KAFKA_SECURITY_PROTOCOL=SASL_SSL needs it,"
            " or INFERD_KAFKA_SASL_PASSWORD_FILE",
        ),
        (
            {
                "INFERD_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "INFERD_KAFKA_SASL_USERNAME": "u",
                "INFERD_KAFKA_SASL_PASSWORD": "p",
                "INFERD_KAFKA_SASL_PASSWORD_FILE": __file__,
            },
            f"INFERD_KAFKA_SASL_PASSWORD_FILE={__file__} and INFERD_KAFKA_SASL_PASSWORD are both set: keep one",
        ),
        (
            {"INFERD_KAFKA_SSL_CAFILE": __file__},
            f"INFERD_KAFKA_SSL_CAFILE={__file__} has no effect with INFERD_KAFKA_SECURITY_PROTOCOL=PLAINTEXT:"
            " it needs SSL or SASL_SSL",
        ),
        (
            {"INFERD_KAFKA_SECURITY_PROTOCOL": "SSL", "INFERD_KAFKA_SSL_KEYFILE": __file__},
            f"INFERD_KAFKA_SSL_CERTFILE is not set: INFERD_KAFKA_SSL_KEYFILE={__file__} needs it",
        ),
    ],
)
def test_conflicting_settings(environ: dict[str, str], line: str) -> None:
    assert problems(environ) == (line,)


def test_an_invalid_certificate_file(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    (line,) = problems({"INFERD_KAFKA_SECURITY_PROTOCOL": "SSL", "INFERD_KAFKA_SSL_CAFILE": str(path)})
    assert line.startswith(f"INFERD_KAFKA_SSL_CAFILE={path} cannot be used")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_http_on_loopback_needs_no_flag(host: str) -> None:
    check_worker(Settings.from_environment({"INFERD_HTTP_HOST": host}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "inferd.example", "localhost.example"])
def test_http_beyond_loopback_needs_a_flag(host: str) -> None:
    (line,) = problems({"INFERD_HTTP_HOST": host})
    assert f"INFERD_HTTP_HOST={host}" in line
    assert "--insecure-http" in line
    check_worker(Settings.from_environment({"INFERD_HTTP_HOST": host, "INFERD_INSECURE_HTTP": "true"}))
    check_connection(Settings.from_environment({"INFERD_HTTP_HOST": host}))


def test_exactly_once_parses() -> None:
    settings = Settings.from_environment({"INFERD_PROCESSING_GUARANTEE": "exactly_once"})
    assert settings.streams().processing_guarantee == "exactly_once"


def test_the_embedded_broker_gets_its_settings(tmp_path: Path) -> None:
    settings = Settings.from_environment({"INFERD_DATA_DIR": str(tmp_path), "INFERD_BROKER_PORT": "0"})
    kafka = settings.embedded_kafka()
    assert (kafka.data_dir, kafka.port, kafka.partitions_default) == (tmp_path / "kafka", 0, 4)


@pytest.mark.parametrize(
    ("host", "url", "warned"),
    [
        ("127.0.0.1", None, False),
        ("127.0.0.1", "http://127.0.0.1:8080", False),
        ("localhost", None, False),
        ("10.0.0.7", None, False),
        ("0.0.0.0", "http://worker-1:8080", False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("0.0.0.0", "http://127.0.0.1:8080", True),
        ("0.0.0.0", "http://[::1]:8080", True),
        ("10.0.0.7", "http://localhost:8080", True),
        ("10.0.0.7", "http://0.0.0.0:8080", True),
    ],
)
def test_an_unreachable_advertised_address_is_a_warning(host: str, url: str | None, warned: bool) -> None:
    warnings = worker_warnings(replace(Settings(), http_host=host, http_advertised_url=url))
    assert bool(warnings) is warned
    assert all("INFERD_HTTP_ADVERTISED_URL" in warning for warning in warnings)


def test_tokens_without_a_forwarding_secret_are_a_warning_beyond_loopback() -> None:
    guarded = replace(Settings(), http_tokens_file="/tokens")
    beyond = replace(guarded, http_host="0.0.0.0", http_advertised_url="http://10.0.0.7:8080")
    assert worker_warnings(guarded) == worker_warnings(replace(beyond, http_forwarding_secret_file="/secret")) == ()
    (warning,) = worker_warnings(beyond)
    assert "INFERD_HTTP_FORWARDING_SECRET_FILE" in warning


def test_settings_reject_what_clients_reject() -> None:
    for name in ("job_messages_max", "job_message_rows_max", "job_labels_max"):
        highest = str(getattr(LARGEST_JOB_LIMITS, name))
        variable = f"INFERD_{name.upper()}"
        assert getattr(Settings.from_environment({variable: highest}), name) == int(highest)
        assert problems({variable: str(int(highest) + 1)})


def test_settings_of_the_schema_registry_need_its_address(tmp_path: Path) -> None:
    assert problems({"INFERD_SCHEMA_REGISTRY_TOKEN": "x"}) == (
        "INFERD_SCHEMA_REGISTRY_TOKEN=*** has no effect without INFERD_SCHEMA_REGISTRY_URL",
    )
    file = tmp_path / "file"
    file.write_text("secret")
    environ = {"INFERD_SCHEMA_REGISTRY_URL": "https://registry.example:8081/path"}
    (both,) = problems(environ | {"INFERD_SCHEMA_REGISTRY_TOKEN": "x", "INFERD_SCHEMA_REGISTRY_TOKEN_FILE": str(file)})
    assert "keep one" in both
    (unusable,) = problems(environ | {"INFERD_SCHEMA_REGISTRY_SSL_CAFILE": str(file)})
    assert "expected PEM files" in unusable
    (wrong,) = problems({"INFERD_SCHEMA_REGISTRY_URL": "https://me:password@registry"})
    assert "INFERD_SCHEMA_REGISTRY_URL" in wrong


OAUTH = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "OAUTHBEARER"}
ENDPOINT = {"kafka_oauth_token_url": "https://login.example/token", "kafka_oauth_client_id": "inferd"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {},
            "INFERD_KAFKA_OAUTH_TOKEN_URL, INFERD_KAFKA_OAUTH_PROVIDER; 0 are set",
        ),
        ({**ENDPOINT, "kafka_oauth_provider": "a.B", "kafka_oauth_client_secret": "s"}, "; 2 are set"),
        (ENDPOINT, "INFERD_KAFKA_OAUTH_CLIENT_SECRET is not set"),
        ({"kafka_oauth_provider": "no_such_module.B"}, "INFERD_KAFKA_OAUTH_PROVIDER cannot be used"),
        ({"kafka_oauth_provider": "json.JSONDecoder", "kafka_oauth_scope": "x"}, "SCOPE=x has no effect without"),
        ({**ENDPOINT, "kafka_oauth_client_secret": "s", "kafka_sasl_username": "me"}, "USERNAME=me has no effect with"),
    ],
)
def test_oauth_needs_one_source(flags: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_connection(Settings.from_environment({}, {**OAUTH, **flags}))
    assert any(words in problem for problem in refused.value.problems), refused.value.problems


def test_settings_of_oauth(tmp_path: Path) -> None:
    settings = Settings.from_environment({}, {**OAUTH, **ENDPOINT, "kafka_oauth_client_secret": "geheim"})
    connection = check_connection(settings).connection()
    assert connection.oauth is not None
    assert connection.oauth.client_secret == "geheim"
    assert "geheim" not in repr(settings) + repr(connection)
    assert not [warning for warning in worker_warnings(settings) if "OAUTH" in warning]
    plain = {**OAUTH, **ENDPOINT, "kafka_oauth_token_url": "http://login.example/token"}
    (warning,) = worker_warnings(Settings.from_environment({}, plain))
    assert "without encryption" in warning
    file = tmp_path / "token"
    file.write_text("t")
    sasl = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_username": "u", "kafka_sasl_password": "p"}
    settings = Settings.from_environment({}, {**sasl, "kafka_oauth_token_file": str(file)})
    with pytest.raises(SettingsError, match="has no effect without INFERD_KAFKA_SASL_MECHANISM=OAUTHBEARER"):
        check_connection(settings)


@pytest.mark.parametrize(
    ("text", "default", "of_a", "shown"),
    [("5", 5, 5, "5"), ("5,a=0", 5, 0, "5,a=0"), ("a=2.5", 0, 2.5, "0,a=2.5"), ("1, a=2, b=3", 1, 2, "1,a=2,b=3")],
)
def test_rates_by_tenant(text: str, default: float, of_a: float, shown: str) -> None:
    rates = Settings.from_environment({"INFERD_QUOTA_REQUESTS_PER_S": text}).quota_requests_per_s
    assert (rates.of("other"), rates.of("a")) == (default, of_a)
    (info,) = (info for info in settings_table() if info.field == "quota_requests_per_s")
    assert info.kind.show(rates) == shown
    assert info.kind.read(shown) == rates


@pytest.mark.parametrize("text", ["-1", "x", "a=", "a=1,a=2", "a=1,5", "A=1", "1,2", "=3", "nan"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="INFERD_QUOTA_BYTES_PER_S"):
        Settings.from_environment({"INFERD_QUOTA_BYTES_PER_S": text})
