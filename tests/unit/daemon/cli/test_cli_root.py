"""The root of the command line: fast help, errors and exit codes, and output."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from click.testing import CliRunner, Result

from inferd.daemon.broker.data_dir import DataDir
from inferd.daemon.broker.errors import PortTakenError
from inferd.daemon.cli import COMMANDS, CommandInfo, main
from inferd.daemon.cli.options import Target, broker_options, settings_options
from inferd.daemon.cli.output import write_json, write_result, write_table
from inferd.daemon.cli.up import next_steps
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.schemas.connection import BrokerUnreachableError
from inferd.schemas.errors import ModelNotFoundError, ServerError

HEAVY = ("faust", "lightgbm", "numpy", "aiokafka", "aiohttp", "pandas", "rich.table")


@click.command("probe")
@click.option("--error")
@broker_options
def probe(error: str | None, target: Target) -> None:
    """A command of the tests."""
    if error:
        raise ERRORS[error]
    write_json(
        {"servers": target.connection.bootstrap_servers, "tenant": target.tenant, "topic": target.topics.name("models")}
    )


@click.command("sweep")
@settings_options(topic_partitions="--partitions")
def sweep(settings: Settings, output: str) -> None:
    """Another one."""
    write_json({"tenants": settings.tenants, "partitions": settings.topic_partitions, "output": output})


def caused_by_the_connection() -> ServerError:
    error = ServerError("cannot deploy")
    error.__cause__ = KafkaConnectionError("x")
    return error


ERRORS: dict[str, Exception] = {
    "failed": ModelNotFoundError("the tenant has no model 'x'"),
    "two\nlines": ServerError("one\ntwo\x1b[0m"),
    "settings": SettingsError(["A=1 is not allowed", "B is not a setting"]),
    "unreachable": BrokerUnreachableError("no Kafka broker answers"),
    "kafka": KafkaConnectionError("connection lost"),
    "caused": caused_by_the_connection(),
    "acl": TopicAuthorizationFailedError("x"),
    "port": PortTakenError("port 9092 is taken"),
    "file": FileNotFoundError(2, "No such file or directory", "model.txt"),
    "usage": click.UsageError("several tenants"),
    "abort": click.Abort(),
}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str | None]]:
    monkeypatch.setitem(COMMANDS, "probe", CommandInfo(f"{__name__}:probe", "A command of the tests."))
    monkeypatch.setitem(COMMANDS, "sweep", CommandInfo(f"{__name__}:sweep", "Another one."))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or import_module(__name__))
    return {"INFERD_BROKER": None, "INFERD_TENANTS": None, "INFERD_NAMESPACE": None}  # type: ignore[return-value]


def run(environ: dict[str, str | None], *arguments: str, **more: str) -> Result:
    return CliRunner().invoke(main, arguments, env={**environ, **more})


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from inferd.daemon.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, _, took_s = done.stderr.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(took_s) < 3  # of CPU, ten times the usual
    assert all(name in done.stdout for name in COMMANDS if name not in ("probe", "sweep"))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"probe", "sweep"}))
def test_every_command_exists_and_its_help_has_an_example(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None

    def examples(command: click.Command) -> None:
        assert command.help
        assert command.epilog, f"{command.name} has no example"
        assert re.search(r"Examples?:\s+inferd ", command.epilog)
        if isinstance(command, click.Group):
            for sub in command.commands.values():
                examples(sub)

    examples(command)


def test_version(environ: dict[str, str | None]) -> None:
    done = run(environ, "--version")
    assert done.exit_code == 0
    assert done.stdout.startswith("inferd ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("failed", 1, "inferd: the tenant has no model 'x'"),
        ("two\nlines", 1, "inferd: one two\\x1b[0m"),
        ("settings", 2, "inferd: A=1 is not allowed\ninferd: B is not a setting"),
        ("unreachable", 3, "inferd: no Kafka broker answers"),
        ("kafka", 3, "inferd: KafkaConnectionError: connection lost"),
        ("caused", 3, "inferd: cannot deploy"),
        ("acl", 1, "inferd: [Error 29] TopicAuthorizationFailedError: x"),
        ("port", 1, "inferd: port 9092 is taken"),
        ("file", 1, "inferd: [Errno 2] No such file or directory: 'model.txt'"),
        ("usage", 2, "inferd: several tenants (see: inferd probe --help)"),
        ("abort", 130, ""),
    ],
)
def test_errors_are_lines_and_exit_codes(environ: dict[str, str | None], error: str, code: int, line: str) -> None:
    done = run(environ, "probe", "--error", error)
    assert (done.exit_code, done.stderr.strip(), done.stdout) == (code, line, "")


def test_a_bug_shows_its_traceback(environ: dict[str, str | None]) -> None:
    done = run(environ, "probe", "--error", "not in the table")
    assert isinstance(done.exception, KeyError)


def test_commands_find_the_broker_of_the_data_directory(environ: dict[str, str | None], tmp_path: Path) -> None:
    environ = {**environ, "INFERD_BROKER": None, "INFERD_DATA_DIR": str(tmp_path)}
    assert json.loads(run(environ, "probe").stdout)["servers"] == "127.0.0.1:9092"
    broker = DataDir(tmp_path / "kafka")
    broker.acquire("4.4.0")
    broker.write_owner(123, "127.0.0.1:40001")
    assert json.loads(run(environ, "probe").stdout)["servers"] == "127.0.0.1:40001"
    assert json.loads(run(environ, "probe", "--broker", "kafka:9092").stdout)["servers"] == "kafka:9092"
    assert json.loads(run(environ, "probe", INFERD_BROKER="kafka:1").stdout)["servers"] == "kafka:1"
    broker.release()
    assert json.loads(run(environ, "probe").stdout)["servers"] == "127.0.0.1:9092"


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("probe", "--nothing"), ("probe", "--output", "xml"), ("probe", "--tenant", "../x")]
)
def test_wrong_usage_prints_one_line_and_exits_with_2(
    environ: dict[str, str | None], arguments: tuple[str, ...]
) -> None:
    done = run(environ, *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("inferd: ")
    assert done.stderr.count("\n") == 1


def test_the_target_comes_from_flags_then_variables_then_defaults(environ: dict[str, str | None]) -> None:
    assert json.loads(run(environ, "probe").stdout) == {
        "servers": "127.0.0.1:9092",
        "tenant": "default",
        "topic": "inferd.default.models",
    }
    variables = {"INFERD_BROKER": "kafka:1", "INFERD_TENANTS": "acme", "INFERD_NAMESPACE": "prod"}
    assert json.loads(run(environ, "probe", **variables).stdout)["topic"] == "prod.acme.models"
    flags = ("--broker", "other:2", "--tenant", "beta", "--namespace", "test")
    assert json.loads(run(environ, "probe", *flags, **variables).stdout) == {
        "servers": "other:2",
        "tenant": "beta",
        "topic": "test.beta.models",
    }


def test_one_of_several_tenants_must_be_chosen(environ: dict[str, str | None]) -> None:
    done = run(environ, "probe", INFERD_TENANTS="a,b")
    assert done.exit_code == 2
    assert "choose one with --tenant" in done.stderr
    assert json.loads(run(environ, "probe", "--tenant", "b", INFERD_TENANTS="a,b").stdout)["tenant"] == "b"


def test_commands_on_all_tenants(environ: dict[str, str | None]) -> None:
    said = json.loads(run(environ, "sweep", "--partitions", "9", "--output", "json", INFERD_TENANTS="a,b").stdout)
    assert said == {"tenants": ["a", "b"], "partitions": 9, "output": "json"}


def test_unknown_variables_are_rejected_by_every_command(environ: dict[str, str | None]) -> None:
    done = run(environ, "probe", INFERD_BROKR="x")
    assert (done.exit_code, done.stderr) == (2, "inferd: INFERD_BROKR is not a setting: did you mean INFERD_BROKER?\n")


def test_a_table_is_plain_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(("name", "count", "on"), [("a\x1b[2J", 1, True), ("x" * 200, None, False)])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["name", "count", "on"]
    assert second.split() == ["a\\x1b[2J", "1", "yes"]
    assert third.split() == ["x" * 200, "-", "no"]
    assert first.index("count") == second.index("1  ", 20) == third.index("-")


def test_an_empty_table_has_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(("name", "count"), [])
    assert capsys.readouterr().out == "name  count\n"


def test_a_result_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    write_result("json", {"x": [1, "\x1b"], "y": float("nan")}, ("x",), [])
    assert json.loads(capsys.readouterr().out) == {"x": [1, "\x1b"], "y": None}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal()


def test_on_a_terminal_a_table_has_rules_and_no_markup(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    write_table(("name",), [("[bold]x[/bold]\x1b[2J",)])
    text = terminal.getvalue()
    assert "[bold]x[/bold]" in text
    assert "\x1b[2J" not in text


def test_on_a_terminal_json_is_indented(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    write_json({"x": 1})
    assert terminal.getvalue() == '{\n  "x": 1\n}\n'


@pytest.mark.parametrize("name", ["worker", "up"])
def test_each_setting_is_a_flag(environ: dict[str, str | None], name: str) -> None:
    text = run(environ, name, "--help").stdout
    for flag in ("--broker", "--tenant", "--http-port", "--insecure-http", "--drain-timeout-s", "--batch-rows-max"):
        assert flag in text
    assert "sasl-password" not in text.replace("--kafka-sasl-password-file", "")
    for section in Settings.SECTIONS:
        assert f"\n{section}:\n" in text


@pytest.mark.parametrize("name", ["worker", "up"])
def test_invalid_flags_are_rejected_before_anything_starts(environ: dict[str, str | None], name: str) -> None:
    done = run(environ, name, "--http-host", "0.0.0.0", "--http-port", "0")
    assert done.exit_code == 2
    assert "--insecure-http" in done.stderr


def test_next_steps_have_the_real_addresses() -> None:
    settings = Settings.from_environment({})
    text = next_steps(replace(settings, broker="127.0.0.1:4711"), "http://127.0.0.1:4712")
    assert text.count("--broker 127.0.0.1:4711") >= 4
    assert "http://127.0.0.1:4712/status" in text
    assert "--broker" not in next_steps(replace(settings, broker="127.0.0.1:9092"), "http://127.0.0.1:8080")


def test_next_steps_are_existing_commands() -> None:
    settings = replace(Settings.from_environment({}), broker="127.0.0.1:4711")
    lines = [line.split("inferd ", 1)[1] for line in next_steps(settings, "u").splitlines() if "  inferd " in line]
    assert len(lines) >= 4
    for line in lines:
        command: Any = main
        for word in line.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
        assert isinstance(command, click.Command), line
