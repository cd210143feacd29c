"""The embedded broker as users meet it: started, stopped, killed, and started wrongly."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from inferd.daemon.broker import (
    BrokerStartError,
    DataDirInUseError,
    DataDirUnusableError,
    EmbeddedKafka,
    PortTakenError,
)
from inferd.daemon.broker.data_dir import DataDir
from inferd.daemon.broker.jars import ensure_jars, read_lock
from inferd.daemon.broker.jvm import find_java
from inferd.daemon.broker.probe import free_port
from inferd.daemon.broker.settings import default_cache_dir
from tests.fixtures.broker import broker_settings

CODECS = ("gzip", "snappy", "lz4", "zstd")


def no_network(coordinate: str, _directory: Path) -> Path:
    raise ConnectionError(f"asked the network for {coordinate}")


async def create_topic(address: str, topic: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


async def write(address: str, topic: str, values: list[bytes], codec: str | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True, compression_type=codec)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def read(address: str, topic: str, count: int, isolation_level: str = "read_uncommitted") -> list[bytes]:
    """The first `count` values, or fewer if no more arrive within a few seconds."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", isolation_level=isolation_level
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        values: list[bytes] = []
        deadline = time.monotonic() + 10
        while len(values) < count and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records if record.value is not None]
        return values
    finally:
        await consumer.stop()


async def test_records_survive_a_stop_and_a_kill(
    spare_broker: EmbeddedKafka, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = spare_broker.bootstrap_servers
    await create_topic(address, namespace)
    await write(address, namespace, [b"first"])

    monkeypatch.setattr("inferd.daemon.broker.jars.fetch_with_jgo", no_network)
    spare_broker.stop()
    assert not spare_broker.running
    spare_broker.start()
    await write(address, namespace, [b"second"])
    spare_broker.kill()
    assert not spare_broker.running
    spare_broker.start()
    await write(address, namespace, [b"third"])

    assert spare_broker.bootstrap_servers == address
    assert await read(address, namespace, 3) == [b"first", b"second", b"third"]


async def test_every_codec_and_transactions_work(kafka: str, namespace: str) -> None:
    await create_topic(kafka, namespace)
    for codec in CODECS:
        await write(kafka, namespace, [codec.encode() * 100], codec)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=namespace)
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(namespace, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(namespace, b"committed")
    finally:
        await producer.stop()

    values = await read(kafka, namespace, len(CODECS) + 1, isolation_level="read_committed")

    assert values == [codec.encode() * 100 for codec in CODECS] + [b"committed"]


async def test_a_topic_is_not_created_by_asking_for_it(kafka: str, namespace: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=1000)
    await producer.start()
    try:
        with pytest.raises(KafkaError):
            await producer.send_and_wait(namespace, b"value")
    finally:
        await producer.stop()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        broker = EmbeddedKafka(broker_settings(tmp_path / "kafka", port=port))

        with pytest.raises(PortTakenError, match=rf"port {port} on 127\.0\.0\.1 is in use.*INFERD_BROKER"):
            broker.start()
    assert not broker.running


def test_a_second_broker_on_the_same_data_is_rejected(
    spare_broker: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.daemon.broker.data_dir.LOCK_WAIT_S", 0.2)
    second = EmbeddedKafka(broker_settings(spare_broker.settings.data_dir))

    with pytest.raises(DataDirInUseError, match=rf"process {spare_broker.pid}, {spare_broker.bootstrap_servers}"):
        second.start()
    assert spare_broker.running


def test_data_of_a_later_version_is_rejected_and_not_changed(tmp_path: Path) -> None:
    data_dir = tmp_path / "kafka"
    later = DataDir(data_dir)
    later.acquire("99.1.0")
    later.release()
    before = (data_dir / "marker.json").read_bytes()

    with pytest.raises(DataDirUnusableError, match=r"written by Kafka 99\.1\.0.*cannot read it"):
        EmbeddedKafka(broker_settings(data_dir)).start()
    assert (data_dir / "marker.json").read_bytes() == before


def test_a_broker_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka", extra={"metric.reporters": "no.such.Reporter"}))

    with pytest.raises(BrokerStartError, match=r"ended with exit code 1 while it was starting: .*no\.such") as caught:
        broker.start()
    assert str(broker.log_path) in caught.value.message
    assert "no.such.Reporter" in caught.value.log_tail
    assert not broker.running


def test_a_controller_port_that_is_already_in_use_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        choices = [free_port("127.0.0.1"), free_port("127.0.0.1"), other.getsockname()[1]]
        monkeypatch.setattr(
            "inferd.daemon.broker.kafka.free_port", lambda host: choices.pop(0) if choices else free_port(host)
        )
        broker = EmbeddedKafka(broker_settings(tmp_path / "kafka"))
        broker.start()
        broker.kill()
    assert not choices


CRASHES_WITH_A_CACHE = """\
#!/bin/sh
case "$*" in *-XX:AOTCache=*) kill -ABRT $$ ;; esac
exec {java} "$@"
"""


def test_a_startup_cache_that_crashes_java_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars = ensure_jars(read_lock(), default_cache_dir(), print)
    jar_dir = tmp_path / "cache" / jars[0].parent.name
    jar_dir.mkdir(parents=True)
    for jar in jars:
        (jar_dir / jar.name).symlink_to(jar)
    java, version = find_java()
    script = tmp_path / "java"
    script.write_text(CRASHES_WITH_A_CACHE.format(java=java))
    script.chmod(0o755)
    monkeypatch.setattr("inferd.daemon.broker.kafka.find_java", lambda: (script, version))
    monkeypatch.setattr("inferd.daemon.broker.startup_cache._digest", lambda _: "damaged")
    damaged = jar_dir / "startup-damaged.aot"
    damaged.write_bytes(b"")
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka", cache_dir=tmp_path / "cache"))

    broker.start()

    broker.kill()
    assert not damaged.exists()


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka"))
    thread = threading.Thread(target=broker.start)
    thread.start()
    thread.join()
    try:
        assert broker.wait(0.5) is None
        os.kill(not_none(broker.pid), signal.SIGKILL)
        assert broker.wait(5) == -signal.SIGKILL
        assert not broker.running
        assert broker.pid is None
    finally:
        broker.kill()


def test_a_broker_that_does_not_stop_is_killed_at_the_deadline(tmp_path: Path) -> None:
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka", stop_timeout_s=0.01, startup_cache=False))
    broker.start()
    pid = not_none(broker.pid)

    broker.stop()

    assert not is_alive(pid)
    assert not (tmp_path / "kafka" / "data" / ".kafka_cleanshutdown").exists()


def test_a_broker_that_does_not_answer_in_time_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(BrokerStartError, match=r"formatting .* took longer than 0\.1 s"):
        EmbeddedKafka(broker_settings(tmp_path / "kafka", start_timeout_s=0.1)).start()
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka"))
    broker.start()
    broker.kill()

    late = EmbeddedKafka(broker_settings(tmp_path / "kafka", start_timeout_s=0.1))
    with pytest.raises(BrokerStartError, match=r"did not answer within 0\.1 s"):
        late.start()
    assert not late.running


class Foreground:
    """`inferd broker` as a child process."""

    def __init__(self, data_dir: Path, port: int = 0, more: Sequence[str] = ()) -> None:
        inferd = [sys.executable, "-c", "from inferd.daemon.cli import main; main()"]
        command = [*inferd, "broker", "--port", str(port), "--data-dir", str(data_dir), *more]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "LC_ALL": "C", "JAVA_TOOL_OPTIONS": "-Xmx1m"},
        )

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for_broker(self) -> tuple[str, int]:
        """Address and process id that it printed."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"listening on (\S+) \(process (\d+)\)", line):
                return found[1], int(found[2])
        raise AssertionError(self.process.communicate()[1])


def not_none(pid: int | None) -> int:
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_ended(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_in_order_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    data_dir = tmp_path / "Käse & more 𝄞"
    with Foreground(data_dir) as command:
        _address, pid = command.wait_for_broker()

        command.process.send_signal(number)

        _output, errors = command.process.communicate(timeout=90)
        assert command.process.returncode == 0
        assert errors.endswith("stopped\n")
        assert not is_alive(pid)
    assert (data_dir / "data" / ".kafka_cleanshutdown").exists()
    assert (data_dir / "logs" / "kafka.log").stat().st_size > 0


def test_no_broker_outlives_a_killed_parent_and_its_data_is_usable(tmp_path: Path) -> None:
    with Foreground(tmp_path / "kafka") as command:
        address, pid = command.wait_for_broker()

        command.process.kill()

        assert has_ended(pid)
    broker = EmbeddedKafka(broker_settings(tmp_path / "kafka", port=int(address.rsplit(":", 1)[1])))
    with broker:
        assert broker.bootstrap_servers == address


def test_the_command_fails_when_the_broker_ends_by_itself(tmp_path: Path) -> None:
    with Foreground(tmp_path / "kafka") as command:
        _address, pid = command.wait_for_broker()

        os.kill(pid, signal.SIGKILL)

        _output, errors = command.process.communicate(timeout=30)
    assert command.process.returncode == 1
    assert "inferd: the broker exited unexpectedly with code -9; see its log " in errors


def test_a_signal_during_the_start_ends_the_command(tmp_path: Path) -> None:
    with Foreground(tmp_path / "kafka") as command:
        assert command.process.stderr is not None
        assert command.process.stderr.readline().startswith("starting")

        command.process.send_signal(signal.SIGINT)

        output, errors = command.process.communicate(timeout=30)
        assert (command.process.returncode, output) == (0, "")
        assert errors.endswith("stopped\n")


def test_the_command_says_in_one_line_that_the_port_is_taken(kafka: str, tmp_path: Path) -> None:
    with Foreground(tmp_path / "kafka", port=int(kafka.rsplit(":", 1)[1])) as command:
        _output, errors = command.process.communicate(timeout=30)
    assert command.process.returncode == 1
    assert re.fullmatch(
        r"starting .*\ninferd: port \d+ on 127\.0\.0\.1 is in use by another process\. [^\n]*\n", errors
    )


@pytest.mark.parametrize(
    ("flag", "value", "line"),
    [
        ("--port", "70000", "inferd: Invalid value for '--port': 70000 is not in the range 0<=x<=65535"),
        ("--host", "0.0.0.0", "inferd: host = '0.0.0.0' is not allowed: it must be a loopback address"),
    ],
)
def test_the_command_says_which_setting_is_wrong(tmp_path: Path, flag: str, value: str, line: str) -> None:
    with Foreground(tmp_path / "kafka", more=[flag, value]) as command:
        _output, errors = command.process.communicate(timeout=30)
    assert command.process.returncode == 2
    assert errors.startswith(line)
    assert errors.count("\n") == 1
