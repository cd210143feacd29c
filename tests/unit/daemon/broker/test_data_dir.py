"""The data directory: ownership, locking by one broker at a time, and readable versions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from inferd.daemon.broker import DataDirInUseError, DataDirUnusableError, running_broker_address
from inferd.daemon.broker.data_dir import DataDir, Marker, known_cluster_id, new_cluster_id

VERSION = "4.4.0"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.daemon.broker.data_dir.LOCK_WAIT_S", 0.05)


def made_by(version: str, path: Path) -> Marker:
    data_dir = DataDir(path)
    try:
        return data_dir.acquire(version)
    finally:
        data_dir.release()


def formatted(path: Path) -> Marker:
    marker = made_by(VERSION, path)
    data_dir = DataDir(path)
    (data_dir.begin_format() / "meta.properties").write_text(f"#\nversion=1\ncluster.id={marker.cluster_id}\n")
    data_dir.finish_format()
    return marker


def test_a_new_directory_gets_a_new_cluster_id(tmp_path: Path) -> None:
    one, other = made_by(VERSION, tmp_path / "a/b"), made_by(VERSION, tmp_path / "c")

    assert one.kafka_version == VERSION
    assert one.cluster_id != other.cluster_id
    assert len(one.cluster_id) == 22
    assert not one.cluster_id.startswith("-")


def test_the_cluster_id_is_kept(tmp_path: Path) -> None:
    assert made_by(VERSION, tmp_path) == made_by(VERSION, tmp_path)


def test_nodes_of_a_cluster_have_its_id_and_no_other(tmp_path: Path) -> None:
    first = made_by(VERSION, tmp_path / "1")
    assert known_cluster_id(tmp_path / "1") == first.cluster_id
    assert known_cluster_id(tmp_path / "2") is None
    node = DataDir(tmp_path / "2")
    assert node.acquire(VERSION, first.cluster_id).cluster_id == first.cluster_id
    node.release()
    with pytest.raises(DataDirUnusableError, match="cluster"):
        node.acquire(VERSION, new_cluster_id())


@pytest.mark.parametrize("reader", ["4.4.0", "4.4.1", "4.10.0"])
def test_a_later_kafka_of_the_same_major_version_reads_the_data(tmp_path: Path, reader: str) -> None:
    before = made_by(VERSION, tmp_path)

    after = made_by(reader, tmp_path)

    assert (after.kafka_version, after.cluster_id) == (reader, before.cluster_id)


@pytest.mark.parametrize("reader", ["4.3.9", "4.3.0", "5.0.0", "3.9.1"])
def test_any_other_version_is_rejected_with_a_remedy(tmp_path: Path, reader: str) -> None:
    made_by(VERSION, tmp_path)

    with pytest.raises(
        DataDirUnusableError, match=rf"written by Kafka {VERSION}.*is Kafka {reader}.*do not delete this one"
    ):
        made_by(reader, tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"kafka_version": "four"}, {"cluster_id": None, "more": 1}],
    ids=["later layout", "no version", "unknown fields"],
)
def test_a_marker_of_another_format_is_rejected(tmp_path: Path, change: dict[str, Any]) -> None:
    made_by(VERSION, tmp_path)
    marker = tmp_path / "marker.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **change}))

    with pytest.raises(DataDirUnusableError, match="delete"):
        made_by(VERSION, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "null", "\x00\xff"])
def test_a_damaged_marker_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "marker.json").write_text(text, encoding="latin-1")

    with pytest.raises(DataDirUnusableError, match=r"marker\.json is damaged"):
        made_by(VERSION, tmp_path)


def test_a_directory_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(DataDirUnusableError, match=r"contains files of something else \(thesis\.txt, …\)"):
        made_by(VERSION, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_at_the_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")

    with pytest.raises(DataDirUnusableError, match=r"file cannot be used: File exists\. Choose another"):
        made_by(VERSION, path)


def test_a_crash_before_the_marker_leaves_a_usable_directory(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1, 127.0.0.1:9092")

    assert made_by(VERSION, tmp_path).kafka_version == VERSION


def test_only_one_process_holds_the_lock_and_the_error_names_it(tmp_path: Path) -> None:
    holder = DataDir(tmp_path)
    holder.acquire(VERSION)
    holder.write_owner(123456789, "a-long-host-name.example.org:9092")
    holder.write_owner(123, "127.0.0.1:9092")

    with pytest.raises(DataDirInUseError, match=r"\(process 123, 127\.0\.0\.1:9092\)"):
        made_by(VERSION, tmp_path)
    holder.release()
    made_by(VERSION, tmp_path)


def test_a_running_broker_is_found_and_a_stale_lock_file_is_ignored(tmp_path: Path) -> None:
    assert running_broker_address(tmp_path / "missing") is None
    holder = DataDir(tmp_path)
    holder.acquire(VERSION)
    assert running_broker_address(tmp_path) is None, "not before it has an address"
    holder.write_owner(123, "127.0.0.1:40001")
    assert running_broker_address(tmp_path) == "127.0.0.1:40001"
    holder.release()
    assert (tmp_path / "lock").read_text() == "process 123, 127.0.0.1:40001"
    assert running_broker_address(tmp_path) is None
    holder.acquire(VERSION)
    assert running_broker_address(tmp_path) is None, "the address is the last one's"
    holder.write_owner(124, "[::1]:40002")
    assert running_broker_address(tmp_path) == "[::1]:40002"
    holder.release()


def test_a_process_that_inherits_the_lock_holds_it(tmp_path: Path) -> None:
    holder = DataDir(tmp_path)
    holder.acquire(VERSION)
    (inherited,) = holder.lock_fds
    assert inherited >= 10
    heir = os.dup(inherited)
    holder.release()

    with pytest.raises(DataDirInUseError):
        made_by(VERSION, tmp_path)
    os.close(heir)
    made_by(VERSION, tmp_path)


def test_a_rejected_directory_is_not_kept_locked(tmp_path: Path) -> None:
    made_by(VERSION, tmp_path)
    refused = DataDir(tmp_path)
    with pytest.raises(DataDirUnusableError):
        refused.acquire("5.0.0")

    made_by(VERSION, tmp_path)
    assert refused.lock_fds == ()


def test_an_interrupted_format_is_repeated(tmp_path: Path) -> None:
    marker = made_by(VERSION, tmp_path)
    data_dir = DataDir(tmp_path)
    (data_dir.begin_format() / "half").write_text("")

    assert not data_dir.is_formatted(marker)
    assert list(data_dir.begin_format().iterdir()) == []


def test_a_finished_format_is_detected(tmp_path: Path) -> None:
    assert DataDir(tmp_path).is_formatted(formatted(tmp_path))


@pytest.mark.parametrize("text", [None, "", "cluster.id=of-another\n"])
def test_damaged_data_is_rejected(tmp_path: Path, text: str | None) -> None:
    marker = formatted(tmp_path)
    properties = tmp_path / "data" / "meta.properties"
    properties.unlink()
    if text is not None:
        properties.write_text(text)

    with pytest.raises(DataDirUnusableError, match=r"is damaged: .*meta\.properties names the cluster"):
        DataDir(tmp_path).is_formatted(marker)
