"""The declarations of the peers: each can be started, in the environment that has its packages."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import installed_peers
from bench.errors import BenchError
from bench.peers import catalog
from bench.peers.catalog import FORMAT_PEERS, PEERS, Peer, command_of, peers_named, running_peer
from bench.peers.task import PeerTask

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "bench" / "frameworks.lock").read_text()
OUR_LOCK = (ROOT / "requirements-dev.lock").read_text()
ALL = {peer.name: peer for peer in (*PEERS, *FORMAT_PEERS)}
PROGRAMS = sorted({peer.module for peer in ALL.values() if peer.module})
FRAMEWORKS = [peer for peer in PEERS if peer.kind == "framework"]
EXIT_DEADLINE_S = 60.0


@pytest.fixture
def task(tmp_path: Path) -> PeerTask:
    return PeerTask("localhost:1", "bench", "tenant", "group", "model.txt", "bench", 1, "d" * 64, str(tmp_path))


def versions(lock: str) -> dict[str, str]:
    """By package, without extras: the version and, after it, the marker."""
    return dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(.*?) \\$", lock, re.MULTILINE))


def imports(module: str, seen: set[str]) -> Iterator[str]:
    """The third-party packages that a module of the bench imports, itself or by others, also within functions."""
    if module in seen:
        return
    seen.add(module)
    path = ROOT.joinpath(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    for node in ast.walk(ast.parse(source.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            top = name.partition(".")[0]
            if top == "bench":
                yield from imports(name, seen)
            elif top not in sys.stdlib_module_names:
                yield top.replace("_", "-")


def test_names_and_titles_are_unique() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert len({peer.title for peer in PEERS}) == len(PEERS)


@pytest.mark.parametrize("module", PROGRAMS)
def test_each_module_is_a_program(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert 'if __name__ == "__main__":' in Path(str(spec.origin)).read_text()


# What bench.libraries imports for models of other formats than LightGBM's.
OTHER_LIBRARIES = {"xgboost", "catboost", "onnxruntime", "skops"}


@pytest.mark.parametrize("peer", FRAMEWORKS, ids=lambda peer: peer.name)
def test_the_environment_of_a_framework_has_all_that_the_peer_imports(peer: Peer) -> None:
    needed = set(imports(str(peer.module), set())) - OTHER_LIBRARIES
    assert {peer.package, "lightgbm", "msgspec", "numpy"} <= needed
    assert needed <= versions(LOCK).keys()


def test_frameworks_have_the_same_versions_of_what_the_job_needs() -> None:
    theirs, ours = versions(LOCK), versions(OUR_LOCK)
    for name in ("lightgbm", "msgpack", "msgspec", "numpy"):
        assert theirs[name] == ours[name]


def test_every_package_of_the_lock_has_hashes_and_no_address() -> None:
    packages = re.split(r"^(?=[\w.-]+(?:\[[^\]]*\])?==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) >= len(versions(LOCK)) > len(FRAMEWORKS)  # some are there once for each of several Pythons
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_a_framework_runs_in_its_own_environment_and_a_loop_in_ours(task: PeerTask) -> None:
    for peer in ALL.values():
        if peer.module:
            python, *rest = command_of(peer, task)
            assert rest == ["-m", peer.module, task.to_argument()]
            assert (".venv-frameworks" in python) == (peer.kind == "framework")


def test_an_unknown_peer_is_rejected() -> None:
    assert [peer.name for peer in peers_named("inferd,bytewax")] == ["bytewax", "inferd"]
    with pytest.raises(ValueError, match="unknown peer 'flink'"):
        peers_named("bytewax,flink")


def test_a_framework_that_is_not_installed_is_left_out_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "FRAMEWORKS", tmp_path)
    (tmp_path / "lib/python3.11/site-packages/faststream").mkdir(parents=True)
    said = io.StringIO()
    left = [peer.name for peer in installed_peers(None, Console(file=said, width=200))]
    assert "faststream" in left
    assert not {"bytewax", "quix"} & set(left)
    assert "without Bytewax, batched by hand, Quix Streams, batching sink: not installed" in said.getvalue()
    with pytest.raises(BenchError, match="Bytewax, batched by hand: not installed"):
        installed_peers(peers_named("bytewax,inferd"), Console(file=said))


def run_to_its_end(peer: Peer, task: PeerTask) -> None:
    with running_peer(peer, task) as process:
        deadline = time.monotonic() + EXIT_DEADLINE_S
        while process.exit_code is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_peer_that_fails_is_reported_with_the_end_of_its_log(task: PeerTask) -> None:
    run_to_its_end(Peer("clean", "Clean", "this", "loop"), task)
    with pytest.raises(BenchError, match=r"(?s)Broken ended with exit code 2.*invalid int value"):
        run_to_its_end(Peer("broken", "Broken", "http.server", "loop"), task)
