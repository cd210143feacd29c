"""Settings of the embedded broker, and the Kafka configuration built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd.daemon.broker import BrokerSettingError, EmbeddedCluster, EmbeddedKafka, EmbeddedKafkaSettings
from inferd.daemon.broker.jvm import java_environment
from inferd.daemon.broker.log_excerpt import likely_cause, log_tail_of
from inferd.daemon.broker.server_config import render_logging, render_properties, server_properties
from inferd.daemon.broker.settings import default_cache_dir, default_data_dir
from inferd.schemas.errors import MESSAGE_CHARS_MAX

HOME = Path.home()


@pytest.mark.parametrize(
    ("environ", "data_dir"),
    [
        ({}, HOME / ".local/share/inferd/kafka"),
        ({"XDG_DATA_HOME": "/data"}, Path("/data/inferd/kafka")),
        ({"XDG_DATA_HOME": "/data", "INFERD_DATA_DIR": "/mine"}, Path("/mine/kafka")),
        ({"INFERD_DATA_DIR": "~/mine"}, HOME / "mine/kafka"),
    ],
)
def test_default_data_directories(environ: dict[str, str], data_dir: Path) -> None:
    assert default_data_dir(environ) == data_dir


@pytest.mark.parametrize(
    ("environ", "cache_dir"),
    [
        ({}, HOME / ".cache/inferd"),
        ({"XDG_CACHE_HOME": "/cache"}, Path("/cache/inferd")),
        ({"XDG_CACHE_HOME": "/cache", "INFERD_CACHE_DIR": "/mine"}, Path("/mine")),
    ],
)
def test_default_cache_directories(environ: dict[str, str], cache_dir: Path) -> None:
    assert default_cache_dir(environ) == cache_dir


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("host", "0.0.0.0"),
        ("host", "192.168.0.1"),
        ("host", "example"),
        ("heap_mb", 127),
        ("partitions_default", 0),
        ("log_level", "LOUD"),
        ("start_timeout_s", 0),
        ("stop_timeout_s", -1.0),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(setting: str, value: Any) -> None:
    with pytest.raises(BrokerSettingError, match=rf"^{setting} = {value!r} is not allowed: it must be "):
        EmbeddedKafkaSettings(**{setting: value})


def test_reserved_properties_cannot_be_overridden() -> None:
    with pytest.raises(BrokerSettingError, match=r"extra\['listeners'\] cannot be set"):
        EmbeddedKafkaSettings(extra={"listeners": "PLAINTEXT://0.0.0.0:9092"})


def test_extra_properties_override_the_defaults() -> None:
    settings = EmbeddedKafkaSettings(partitions_default=7, extra={"auto.create.topics.enable": "true", "x": "y"})

    properties = server_properties(settings, port=1, controller_port=2, kafka_dir=Path("/k"))

    assert properties["num.partitions"] == "7"
    assert properties["auto.create.topics.enable"] == "true"
    assert properties["x"] == "y"


@pytest.mark.parametrize(
    ("host", "listener", "bootstrap"),
    [
        ("127.0.0.1", "127.0.0.1:1", "127.0.0.1:1"),
        ("localhost", "localhost:1", "localhost:1"),
        ("::1", "[::1]:1", "[::1]:1"),
    ],
)
def test_addresses(tmp_path: Path, host: str, listener: str, bootstrap: str) -> None:
    settings = EmbeddedKafkaSettings(data_dir=tmp_path, host=host, port=1)

    properties = server_properties(settings, port=1, controller_port=2, kafka_dir=tmp_path)

    assert properties["advertised.listeners"] == f"PLAINTEXT://{listener}"
    assert EmbeddedKafka(settings).bootstrap_servers == bootstrap


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("C:\\x", "C:\\\\x"),
        ("Käse 1", "K\\u00e4se 1"),
        ("𝄞", "\\ud834\\udd1e"),
        ("a\nb", "a\\u000ab"),
        ("a=b#!", "a=b#!"),
    ],
)
def test_properties_files_are_ascii(value: str, written: str) -> None:
    assert render_properties({"a": value}) == f"a={written}\n"


def test_the_logging_configuration_names_the_file() -> None:
    assert "appender.file.fileName = /d/K\\u00e4se/kafka.log\n" in render_logging("INFO", Path("/d/Käse/kafka.log"))


@pytest.mark.parametrize("path", ["/a,b", "/100%", "/$HOME", "/a\nb", "/\udcff"])
def test_a_data_directory_that_kafka_would_misread_is_rejected(path: str) -> None:
    with pytest.raises(BrokerSettingError, match=r"^data_dir = .* is not allowed: it must be a path without , % [$]"):
        EmbeddedKafkaSettings(data_dir=Path(path))


def test_a_cache_directory_that_java_would_misread_is_rejected() -> None:
    with pytest.raises(BrokerSettingError, match=r"^cache_dir = '/a:b' is not allowed"):
        EmbeddedKafkaSettings(cache_dir=Path("/a:b"))


def test_java_options_of_the_environment_are_dropped() -> None:
    given = {"PATH": "/bin", "JAVA_TOOL_OPTIONS": "-Xmx1m", "_JAVA_OPTIONS": "x", "CLASSPATH": "y", "LC_ALL": "C"}
    assert java_environment(given) == {"PATH": "/bin", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no output"),
        ("one\ntwo\n", "two"),
        ("one\nWARNING: sun.misc.Unsafe::invokeCleaner will be removed in a future release\n", "one"),
        ("a INFO b\nx ERROR Server: broken\nx ERROR later", "Server: broken"),
        ("x ERROR Fatal\nk.KafkaException: the cause\n\tat x\nCaused by: other", "k.KafkaException: the cause"),
        ('Exception in thread "main" j.ConfigException: bad\n\tat x', "j.ConfigException: bad"),
        ("java.lang.OutOfMemoryError: heap", "java.lang.OutOfMemoryError: heap"),
    ],
)
def test_the_likely_cause_is_found_in_a_log(text: str, line: str) -> None:
    assert likely_cause(text) == line


def test_a_long_cause_leaves_room_for_the_remedy_behind_it() -> None:
    cause = likely_cause("java.lang.RuntimeException: " + "one cause after another; " * 100)
    assert cause.startswith("java.lang.RuntimeException: one cause")
    assert cause.endswith("…")
    assert len(cause) < MESSAGE_CHARS_MAX / 2


def test_the_tail_of_a_log_has_no_stack_frames() -> None:
    assert log_tail_of("a\n\tat b\nc\n") == "a\nc"


@pytest.mark.parametrize(("nodes", "replicas", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")])
def test_topics_of_a_cluster_have_replicas(tmp_path: Path, nodes: int, replicas: str, in_sync: str) -> None:
    cluster = EmbeddedCluster(EmbeddedKafkaSettings(data_dir=tmp_path, port=0), nodes)
    last = cluster.nodes[-1].settings
    assert last.node is not None
    assert last.data_dir == tmp_path / f"node-{nodes}"
    assert len({node.settings.node.cluster_id for node in cluster.nodes if node.settings.node}) == 1
    found = server_properties(last, port=1, controller_port=last.node.controllers[nodes], kafka_dir=tmp_path)
    assert (found["node.id"], found["default.replication.factor"], found["min.insync.replicas"]) == (
        str(nodes), replicas, in_sync,
    )  # fmt: skip
    assert len(found["controller.quorum.voters"].split(",")) == nodes
    assert f":{last.node.controllers[nodes]}" in found["listeners"]


@pytest.mark.parametrize("nodes", [0, 6])
def test_the_number_of_nodes_is_bounded(tmp_path: Path, nodes: int) -> None:
    with pytest.raises(BrokerSettingError, match="nodes"):
        EmbeddedCluster(EmbeddedKafkaSettings(data_dir=tmp_path), nodes)
