"""The command line: `inferd COMMAND`. A command's module is imported only when it runs, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from inferd.daemon.cli.output import (
    EXIT_INTERRUPTED,
    error_lines,
    exit_code_of,
    report_error,
)


class CommandInfo(NamedTuple):
    """Location of a command, and its summary in the list of commands."""

    location: str
    """`module:attribute`."""
    summary: str


COMMANDS = {
    "up": CommandInfo("inferd.daemon.cli.up:up", "Run a broker and a worker together on this machine."),
    "worker": CommandInfo("inferd.daemon.cli.worker:worker", "Run a worker: score the requests of its tenants."),
    "broker": CommandInfo("inferd.daemon.cli.broker:broker", "Run an Apache Kafka broker on this machine."),
    "topics": CommandInfo("inferd.daemon.cli.topics:topics", "Create, grow or list the topics of tenants."),
    "models": CommandInfo("inferd.daemon.cli.models:models", "Deploy, list, show or remove models; move aliases."),
    "rollouts": CommandInfo(
        "inferd.daemon.cli.rollouts:rollouts", "Roll out a version step by step, and back if a guard is breached."
    ),
    "predict": CommandInfo(
        "inferd.daemon.cli.predict.command:predict", "Send rows through Kafka and print their predictions."
    ),
    "jobs": CommandInfo(
        "inferd.daemon.cli.jobs.commands:jobs", "Score a file as a batch job: submit, watch, read the results."
    ),
    "routes": CommandInfo("inferd.daemon.cli.routes:routes", "Score topics that exist, in their own format."),
    "labels": CommandInfo("inferd.daemon.cli.labels:labels", "Send what was true of requests."),
    "capture": CommandInfo("inferd.daemon.cli.capture:capture", "Export captured requests with their features."),
    "dead-letters": CommandInfo(
        "inferd.daemon.cli.dead_letters:dead_letters", "List, show and redrive rejected records."
    ),
    "top": CommandInfo("inferd.daemon.cli.top:top", "Show the cluster in the terminal, live."),
    "pause": CommandInfo("inferd.daemon.cli.pauses:pause", "Let the records of a model or a route wait."),
    "resume": CommandInfo("inferd.daemon.cli.pauses:resume", "Process the records of a paused model or route."),
    "pauses": CommandInfo("inferd.daemon.cli.pauses:pauses", "List what is paused."),
    "replay": CommandInfo("inferd.daemon.cli.replay:replay", "Score past requests again with another version."),
    "offsets": CommandInfo("inferd.daemon.cli.offsets:offsets", "Show or move the offsets of the workers' group."),
    "audit": CommandInfo("inferd.daemon.cli.audit:audit", "Show who changed what, when and from where."),
    "doctor": CommandInfo("inferd.daemon.cli.doctor:doctor", "Check broker, topics, models and this machine."),
    "asyncapi": CommandInfo("inferd.daemon.cli.asyncapi:asyncapi", "Print the AsyncAPI document of the topics."),
    "demo": CommandInfo("inferd.daemon.demo:demo", "Run a demo: train, deploy and score on real data."),
}


class Root(click.Group):
    """The group of all commands. Errors become lines `inferd: …` on standard error, and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands in display order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported on demand; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].location.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line; exits the process unless `standalone_mode` is off."""
        try:
            code = super().main(args, prog_name or "inferd", complete_var, standalone_mode=False, **extra)
        except Exception as error:  # _exit_with raises unexpected errors again
            if not standalone_mode:
                raise
            _exit_with(error)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _exit_with(error: Exception) -> NoReturn:
    if isinstance(error, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(error, click.ClickException):
        report_error(_click_message(error))
        sys.exit(error.exit_code)
    code = exit_code_of(error)
    if code is None:
        raise error
    for line in error_lines(error):
        report_error(line)
    sys.exit(code)


def _click_message(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')} (see: {error.ctx.command_path} --help)"
    return message


def _print_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from inferd.daemon.version import inferd_version

        click.echo(f"inferd {inferd_version()}")
        ctx.exit()


@click.group(
    "inferd",
    cls=Root,
    epilog="Example: inferd up, and then: inferd models deploy model.txt --name churn",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.option("-v", "--verbose", count=True, help="Show logs of libraries on standard error; twice for more.")
def main(verbose: int) -> None:
    """Serve models of tabular data over Apache Kafka.

    Settings are environment variables INFERD_* (docs/settings.md); flags override them.

    Exit codes: 0 success, 1 failure, 2 wrong usage, 3 broker unreachable.
    """
    from inferd.daemon.telemetry import configure_for_command

    configure_for_command(verbose)
