"""Every program of docs/customise.md runs, in the order in which a reader tries them, in one directory."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "customise.md").read_text(encoding="utf-8")
PROGRAMS: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# (?P<file>\w+\.py)\n")
DEADLINE_S = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(script: Path, port: int) -> Iterator[None]:
    """A program that runs a server, while this block lasts."""
    command, environment = [sys.executable, str(script)], {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=script.parent, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any(f"http://127.0.0.1:{port}" in line for line in process.stderr), "it ended"
            yield
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE_S)


class Reader:
    """Runs the programs one after the other, as a reader in a notebook does; programs with a file name are written to
    files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.printed: list[list[str]] = []
        """The output of each program, by line."""
        self._names: dict[str, Any] = {}

    def read(self, programs: list[str]) -> None:
        """Runs all programs; a server keeps running for the next one."""
        port = free_port()
        for number, program in enumerate(programs):
            text = program.replace("8000", str(port))
            if (named := NAMED.match(program)) is None:
                self._run(text)
                continue
            (path := self.directory / named["file"]).write_text(text)
            if "start_server()" in text:
                with serving(path, port):
                    self._run(programs[number + 1].replace("8000", str(port)))
                programs[number + 1] = ""

    def _run(self, program: str) -> None:
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(program, "customise.md", "exec"), self._names)
        if program:
            self.printed.append(printed.getvalue().splitlines())


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Reader(tmp_path)
    sys.modules.pop("mypackage", None)


def test_every_program_runs_and_prints_the_documented_output(reader: Reader) -> None:
    reader.read([*PROGRAMS])
    (_, models, predictions, cache, batch, override, client, routes, errors) = reader.printed
    assert models[0].startswith("ticket_classifier 1 ['Column_0', ")
    assert models[1:] == ["ticket_classifier:1", "ticket_classifier:2"]
    assert 0 < float(predictions[0]) < 1
    assert predictions[1] in ("['complaint', 'complaint']", "['question', 'question']")
    assert re.fullmatch(r"\{'inferd:default:[0-9a-f]{40}': '\[0\.\d+\]'\}", cache[0])
    assert batch[0] in {"queued", "running", "completed"}
    assert batch[1].endswith("} 1000")
    assert override[:2] == ["{'row': 0, 'prediction': 'urgent'}", "{'row': 1, 'prediction': 'normal'}"]
    assert "'code': 'schema_mismatch'" in override[2]
    assert client == predictions[:1]
    assert routes[0] == f"{{'predictions': [{predictions[0]}]}}"
    assert routes[1].startswith("422 {'code': 'invalid_value', 'message': 'body input_batch: Expected `array`")
    assert routes[2:] == ["201", "[{'id': 0}, {'id': 1}]"]
    assert [line.split(" - ")[0] for line in errors] == ["schema_mismatch", "job_not_found", "internal"]


def test_the_named_settings_exist() -> None:
    from inferd.daemon.settings.settings import settings_table

    flags = {info.flag for info in settings_table()}
    variables = {info.variable for info in settings_table()}
    (command,) = re.findall(r"^inferd worker .*$", PAGE, re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", command)) <= flags
    assert set(re.findall(r"INFERD_[A-Z_]+", PAGE)) <= variables
