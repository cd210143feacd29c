"""The programs of README.md, docs/clients.md and docs/wire.md run as written, in the order of a reader."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.workers import Cluster, StartWorker

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "clients.md", ROOT / "docs" / "wire.md")
PROGRAMS: dict[Path, list[str]] = {
    page: re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for page in PAGES
}
LINKS = [
    (page, path)
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
    for path in re.findall(r"\]\(([\w./-]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
]


def run(program: str, cluster: Cluster, directory: Path) -> str:
    """Standard output of a documented program, run against this cluster."""
    program = program.replace('Client("127.0.0.1:9092")', f'Client("127.0.0.1:9092", namespace="{cluster.namespace}")')
    program = program.replace("127.0.0.1:9092", cluster.bootstrap).replace('"inferd.', f'"{cluster.namespace}.')
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(mark: str) -> str:
    """The only program that contains this text."""
    (found,) = [program for programs in PROGRAMS.values() for program in programs if mark in program]
    return found


def test_every_program_runs(cluster: Cluster, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(cluster)
    run(program("save_model"), cluster, tmp_path)
    assert (tmp_path / "churn.txt").stat().st_size > 1_000
    assert re.fullmatch(r"churn 1 [0-9a-f]{64}\n", run(program("deploy_file"), cluster, tmp_path))
    output = run(PROGRAMS[README][1], cluster, tmp_path).splitlines()
    assert re.fullmatch(r"0\.9\d+ by version 1", output[0])
    assert output[1].startswith("invalid_value ")
    output = run(program("client.predict_many"), cluster, tmp_path).splitlines()
    assert re.fullmatch(r"0\.9\d+ by version 1", output[0])
    assert len(output) == 1 + 72 + 1
    assert output[-1].startswith("invalid_value ")
    assert run(program("SyncClient"), cluster, tmp_path).splitlines()[1] == "['churn:1']"
    assert "b'customer-7' {'id': 'r-1', 'model_id': 'churn'" in run(program("msgpack"), cluster, tmp_path)
    output = run(program("client.submit_job"), cluster, tmp_path).splitlines()
    assert output[-2:] == ["completed 10000 of 10000 rows", "10000 predictions"]
    served = program("ModelServer").replace("port=8000", "port=0")
    assert re.fullmatch(r"0\.9\d+\n", run(served, cluster, tmp_path))
    compile(program("TlsError"), "clients.md", "exec")  # connects to the reader's own cluster
    assert [len(programs) for programs in PROGRAMS.values()] == [2, 6, 1]


@pytest.mark.parametrize(("page", "path"), LINKS)
def test_linked_files_exist(page: Path, path: str) -> None:
    assert (page.parent / path).exists()
