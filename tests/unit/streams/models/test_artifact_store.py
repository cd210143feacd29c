"""Artifacts on disk: only complete ones are visible, whatever the order of their parts."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import MalformedError, ServerError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.models.model import ArtifactKey
from inferd.streams.models.artifact_store import ABANDONED_S, ArtifactStore

LIMITS = Limits(artifact_bytes_max=1_000, artifact_part_bytes_max=100)
DATA = bytes(range(256)) + b"the end"
PARTS = [DATA[start : start + 100] for start in range(0, len(DATA), 100)]
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return opened(tmp_path / "artifacts")


def opened(directory: Path) -> ArtifactStore:
    store = ArtifactStore(directory, LIMITS)
    store.open()
    return store


def put(store: ArtifactStore, *numbers: int, parts: list[bytes] = PARTS, sha: str = SHA) -> None:
    for number in numbers:
        store.put(ArtifactKey(sha, number), parts[number])


def whole(store: ArtifactStore, size: int = len(DATA)) -> bytes | None:
    path = store.complete(SHA, size)
    return None if path is None else path.read_bytes()


def files(store: ArtifactStore) -> list[str]:
    return sorted(path.name for path in store.path(SHA).parent.iterdir())


# Parts


@given(order=st.permutations([0, 1, 2, 0, 1, 2]))
def test_parts_arrive_in_any_order_and_repeatedly(order: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = opened(tmp_path_factory.mktemp("artifacts"))
    for seen, number in enumerate(order, 1):
        put(store, number)
        assert whole(store) == (DATA if set(order[:seen]) == {0, 1, 2} else None)
    assert files(store) == [f"{SHA}.model"]


def test_how_much_has_arrived_is_counted_up_to_the_first_part_that_is_missing(store: ArtifactStore) -> None:
    assert store.bytes_present(SHA) == 0
    put(store, 0, 2)
    assert store.bytes_present(SHA) == 100
    put(store, 1)
    assert store.bytes_present(SHA) == len(DATA)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_waited_for(store: ArtifactStore, missing: int) -> None:
    put(store, *({0, 1, 2} - {missing}))
    assert whole(store) is None
    put(store, missing)
    assert whole(store) == DATA


def test_a_part_that_is_too_large_is_rejected(store: ArtifactStore) -> None:
    with pytest.raises(TooLargeError, match=rf"part 0 of artifact {SHA} has 101 bytes, the limit is 100"):
        store.put(ArtifactKey(SHA, 0), b"x" * 101)
    assert whole(store) is None


def test_parts_beyond_any_artifact_are_rejected(store: ArtifactStore) -> None:
    store.put(ArtifactKey(SHA, 19), b"x")
    with pytest.raises(TooLargeError, match="there are too many parts"):
        store.put(ArtifactKey(SHA, 20), b"x")


def test_parts_of_another_artifact_do_not_mix(store: ArtifactStore) -> None:
    put(store, 0, 2)
    put(store, 1, sha="0" * 64)
    assert whole(store) is None


# Errors


def test_bytes_of_another_digest_are_rejected_and_later_right_ones_accepted(store: ArtifactStore) -> None:
    put(store, 0, 1, 2, parts=[PARTS[0], PARTS[0], PARTS[2]])
    for _ in range(2):
        with pytest.raises(MalformedError, match=r"have another digest, [0-9a-f]{64}; deploy the model again"):
            whole(store)
    assert not store.path(SHA).exists(), "a wrong artifact is never visible"
    put(store, 1)
    assert whole(store) == DATA


@pytest.mark.parametrize("size", [100, 200, len(DATA) - 1])
def test_a_manifest_with_a_wrong_size_does_not_affect_a_right_one(store: ArtifactStore, size: int) -> None:
    put(store, 0, 1, 2)
    with pytest.raises(MalformedError, match=rf"the manifest says {size} bytes, and {len(DATA)} have arrived"):
        whole(store, size)
    assert whole(store) == DATA
    with pytest.raises(MalformedError, match="the manifest says"):
        whole(store, size)
    assert whole(store) == DATA


def test_a_manifest_with_a_wrong_size_does_not_stop_parts_that_are_on_their_way(store: ArtifactStore) -> None:
    put(store, 0)
    with pytest.raises(MalformedError, match="another digest"):
        whole(store, 100)
    put(store, 1, 2)
    assert whole(store) == DATA


def test_an_artifact_smaller_than_its_manifest_says_is_awaited(store: ArtifactStore) -> None:
    put(store, 0, 1, 2)
    assert whole(store, len(DATA) + 1) is None


# Removal


def test_a_removed_artifact_can_be_deployed_again(store: ArtifactStore) -> None:
    put(store, 0, 1, 2)
    assert whole(store) == DATA
    store.remove(SHA)
    assert whole(store) is None
    assert files(store) == []
    put(store, 0, 1)
    store.remove(SHA)
    put(store, 2)
    assert whole(store) is None
    put(store, 0, 1)
    assert whole(store) == DATA
    store.remove("0" * 64)


# Restarts, damage, and workers side by side


def test_a_restart_finds_whole_artifacts_and_needs_no_parts_again(store: ArtifactStore) -> None:
    put(store, 0, 1, 2)
    assert whole(store) == DATA
    again = opened(store.path(SHA).parent)
    put(again, 0, 1, 2)
    assert files(again) == [f"{SHA}.model"]
    assert whole(again) == DATA


def test_a_restart_continues_with_the_stored_parts(store: ArtifactStore) -> None:
    put(store, 0, 1)
    again = opened(store.path(SHA).parent)
    put(again, 2)
    assert whole(again) == DATA


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA[:-1] + b"x", DATA + b"x"])
def test_a_file_that_was_damaged_on_disk_is_read_again_at_the_next_start(store: ArtifactStore, damaged: bytes) -> None:
    put(store, 0, 1, 2)
    path = store.complete(SHA, len(DATA))
    assert path is not None
    path.write_bytes(damaged)
    again = opened(path.parent)
    assert whole(again) is None
    put(again, 0, 1, 2)
    assert whole(again) == DATA


def test_a_damaged_file_of_another_worker_is_not_used(store: ArtifactStore) -> None:
    store.path(SHA).write_bytes(b"x" * len(DATA))
    with pytest.raises(MalformedError, match="its file was damaged on disk; restart to read it again"):
        whole(store)
    assert files(store) == []


def test_an_artifact_assembled_by_another_worker_is_used(store: ArtifactStore) -> None:
    other = opened(store.path(SHA).parent)
    put(store, 0, 1, 2)
    put(other, 0)
    assert whole(store) == DATA
    assert whole(other) == DATA
    put(other, 1, 2)
    assert whole(other) == DATA


def test_workers_that_share_a_directory_do_not_interfere(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        choice, store = random.Random(seed), opened(tmp_path)
        try:
            for _ in range(40):
                barrier.wait(10)
                order = [0, 1, 2]
                choice.shuffle(order)
                for number in order:
                    put(store, number)
                    if (path := store.complete(SHA, len(DATA))) is not None:
                        assert path.read_bytes() == DATA
                assert whole(store) == DATA
                barrier.wait(10)
                store.remove(SHA)
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)
            barrier.abort()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failures == []


def test_partial_files_of_a_killed_worker_are_removed_later(store: ArtifactStore) -> None:
    directory = store.path(SHA).parent
    old, new = directory / ".aside-old", directory / ".aside-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (old.stat().st_mtime - ABANDONED_S - 1,) * 2)
    opened(directory)
    assert files(store) == [".aside-new"], "the new one may be in use"


# The disk


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerError, match=rf"stored in {tmp_path}/file/x: Not a directory; .*set INFERD_DATA_DIR"):
        opened(tmp_path / "file" / "x")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_directory_that_cannot_be_written_is_found_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ServerError, match="No space left on device; free some space, or set INFERD_DATA_DIR"):
        opened(tmp_path)


def test_a_full_disk_leaves_no_partial_file(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, 0, 1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(ServerError, match="No space left on device"):
            put(store, 2)
    put(store, 2)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(ServerError, match="No space left on device"):
            whole(store)
    assert files(store) == [f"{SHA}.{number}.part" for number in range(3)]
    assert whole(store) == DATA


def test_a_directory_that_is_removed_is_made_again(store: ArtifactStore) -> None:
    put(store, 0, 1, 2)
    assert whole(store) == DATA
    shutil.rmtree(store.path(SHA).parent)
    assert whole(store) is None
    put(store, 0, 1, 2)
    assert whole(store) == DATA
