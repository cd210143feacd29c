"""The jar cache: only locked jars, each downloaded once by any number of processes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.daemon.broker import JarsRejectedError, JarsUnavailableError
from inferd.daemon.broker.jars import APICURIO, JarLock, ensure_jars, read_lock

CONTENTS = {
    "org.apache.kafka:kafka_2.13:4.0.0": b"kafka",
    "org.slf4j:slf4j-api:1.7": b"logging",
    "a.b:c:1": b"c" * 1000,
}


def lock_of(contents: dict[str, bytes]) -> JarLock:
    rows = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in contents.items()]
    return read_lock(text="# a comment\n" + "\n".join(rows) + "\n")


LOCK = lock_of(CONTENTS)


class Repository:
    """A fake repository instead of the network."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def fetch(self, coordinate: str, directory: Path) -> Path:
        self.asked.append(coordinate)
        path = directory / coordinate.replace(":", "_")
        path.write_bytes(self.contents[coordinate])
        return path


def no_network(coordinate: str, _directory: Path) -> Path:
    raise ConnectionError(f"no route to fetch {coordinate}")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def report(said: list[str]) -> Callable[[str], None]:
    return said.append


def test_missing_jars_are_downloaded_in_class_path_order(
    tmp_path: Path, report: Callable[[str], None], said: list[str]
) -> None:
    repository = Repository(CONTENTS)

    paths = ensure_jars(LOCK, tmp_path, report, repository.fetch)

    assert [path.name for path in paths] == ["kafka_2.13-4.0.0.jar", "slf4j-api-1.7.jar", "c-1.jar"]
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert said[0] == "downloading Apache Kafka 4.0.0, once: 3 jars, 0 MB"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download.lock", paths[0].parent.name]


def test_intact_jars_are_not_downloaded_again(tmp_path: Path, report: Callable[[str], None], said: list[str]) -> None:
    first = ensure_jars(LOCK, tmp_path, report, Repository(CONTENTS).fetch)
    said.clear()

    assert ensure_jars(LOCK, tmp_path, report, no_network) == first
    assert said == []


@pytest.mark.parametrize("damaged", [b"", b"Kafka", b"kafka and more"])
def test_only_a_damaged_jar_is_downloaded_again(tmp_path: Path, report: Callable[[str], None], damaged: bytes) -> None:
    kafka = ensure_jars(LOCK, tmp_path, report, Repository(CONTENTS).fetch)[0]
    kafka.write_bytes(damaged)
    repository = Repository(CONTENTS)

    ensure_jars(LOCK, tmp_path, report, repository.fetch)

    assert repository.asked == ["org.apache.kafka:kafka_2.13:4.0.0"]
    assert kafka.read_bytes() == b"kafka"


def test_a_jar_that_does_not_match_the_lock_is_rejected(tmp_path: Path, report: Callable[[str], None]) -> None:
    repository = Repository({**CONTENTS, "a.b:c:1": b"something else"})

    with pytest.raises(JarsRejectedError, match=r"a\.b:c:1 was rejected: its SHA-256 is [0-9a-f]{64}, expected"):
        ensure_jars(LOCK, tmp_path, report, repository.fetch)

    assert not list(tmp_path.rglob("c-1.jar"))
    assert not (tmp_path / "download").exists()


def test_without_network_the_error_has_a_remedy(tmp_path: Path, report: Callable[[str], None]) -> None:
    with pytest.raises(
        JarsUnavailableError, match=r"could not download .*no route.*needs network access.*INFERD_BROKER"
    ):
        ensure_jars(LOCK, tmp_path, report, no_network)


def test_an_unwritable_cache_directory_is_named(tmp_path: Path, report: Callable[[str], None]) -> None:
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file")

    with pytest.raises(JarsUnavailableError, match=r"could not be written to .*cache.*Choose another"):
        ensure_jars(LOCK, in_the_way, report, Repository(CONTENTS).fetch)


def test_two_processes_download_once(tmp_path: Path, report: Callable[[str], None], said: list[str]) -> None:
    repository = Repository(CONTENTS)
    first_fetches, may_go_on = threading.Event(), threading.Event()

    def slow_fetch(coordinate: str, directory: Path) -> Path:
        first_fetches.set()
        assert may_go_on.wait(10)
        return repository.fetch(coordinate, directory)

    first = threading.Thread(target=ensure_jars, args=(LOCK, tmp_path, report, slow_fetch))
    first.start()
    assert first_fetches.wait(10)

    def say(line: str) -> None:
        report(line)
        if line.startswith("another process"):
            may_go_on.set()

    ensure_jars(LOCK, tmp_path, say, no_network)
    first.join()

    assert sorted(repository.asked) == sorted(CONTENTS)
    assert "another process is downloading Apache Kafka: waiting for it" in said


def test_leftovers_of_a_killed_download_are_removed(tmp_path: Path, report: Callable[[str], None]) -> None:
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "half.jar").write_bytes(b"half")

    ensure_jars(LOCK, tmp_path, report, Repository(CONTENTS).fetch)

    assert not (tmp_path / "download").exists()


def test_another_lock_file_uses_another_directory(tmp_path: Path, report: Callable[[str], None]) -> None:
    later = {**CONTENTS, "a.b:c:1": b"later"}
    old = ensure_jars(LOCK, tmp_path, report, Repository(CONTENTS).fetch)

    new = ensure_jars(lock_of(later), tmp_path, report, Repository(later).fetch)

    assert old[2].read_bytes() == CONTENTS["a.b:c:1"]
    assert new[2].read_bytes() == b"later"


def test_the_packaged_lock_has_one_kafka_version_and_no_duplicate_jar() -> None:
    lock = read_lock()

    names = [jar.file_name for jar in lock.jars]
    assert len(names) == len(set(names))
    assert int(lock.version.split(".")[0]) >= 4
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in lock.jars)
    assert any(name.startswith("log4j-slf4j-impl-") for name in names)
    kafka_jars = {jar.coordinate.rsplit(":", 1)[1] for jar in lock.jars if "org.apache.kafka:" in jar.coordinate}
    assert kafka_jars == {lock.version}


def test_the_packaged_lock_of_the_registry_names_its_archive() -> None:
    lock = read_lock(APICURIO)

    (archive,) = lock.jars
    assert archive.file_name == f"apicurio-registry-app-{lock.version}-all.zip"
    assert archive.version == lock.version
    assert lock.directory(Path("cache")).name.startswith(f"apicurio-{lock.version}-")
