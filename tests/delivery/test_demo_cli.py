"""`inferd demo` from start to end, and the files that it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

for package in ("pyarrow", "chatterbot_corpus"):
    pytest.importorskip(package, reason="the demo's extra is not installed")

COMMAND = (sys.executable, "-m", "inferd.daemon.demo")
FAST = ("--flights", "1500", "--latency-s", "0.5")


def environment(temporary: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    return {**kept, "TMPDIR": str(temporary), **settings}


def demo_topics(kafka: str) -> set[str]:
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=20).topics
    return {name for name in topics if re.match(r"demo-[0-9a-f]{8}\.", name)}


def test_the_demo_succeeds_and_leaves_no_files_or_processes_behind(kafka: str, tmp_path: Path) -> None:
    before = demo_topics(kafka)
    done = subprocess.run(
        [*COMMAND, *FAST],
        env=environment(tmp_path, INFERD_BROKER=kafka),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout.partition("Checks")[2]
    checks = done.stdout.partition("Checks")[2].count("✓")
    assert checks >= 18
    assert "version 2 was promoted" in done.stdout
    assert "version 3 was rolled back by a guard: auc > champion - 0.15" in done.stdout
    assert "results equal LightGBM's own Booster.predict bit for bit: 1,500 of 1,500" in done.stdout
    assert "its results equal Booster.predict bit for bit: 1,500 of 1,500" in done.stdout
    assert "labels and probabilities equal scikit-learn's own bit for bit: 1,495 of 1,495" in done.stdout
    for shown in ("AUC", "requests/s", "p99", "schema_mismatch", '"requests_in"', "exit code 0"):
        assert shown in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert demo_topics(kafka) <= before


def test_a_demo_that_is_interrupted_stops_its_worker(kafka: str, tmp_path: Path) -> None:
    before = demo_topics(kafka)
    with subprocess.Popen(
        [*COMMAND, "--flights", "1500", "--latency-s", "60"],
        env=environment(tmp_path, INFERD_BROKER=kafka),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("stream"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 130
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (len(children), [])
    assert list(tmp_path.iterdir()) == []
    assert demo_topics(kafka) <= before


def test_an_unreachable_broker_is_reported(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [*COMMAND, *FAST],
        env=environment(tmp_path, INFERD_BROKER="127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []
