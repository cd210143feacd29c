"""`inferd top`: the cluster in the terminal, live."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.daemon.cli.options import output_option
from inferd.daemon.cli.output import OutputFormat, report, write_json, write_table
from inferd.daemon.cli.top_view import LAGS_MAX, MODELS_MAX, View, json_of, view_of
from inferd.schemas.connection import client_context
from inferd.schemas.errors import ServerError

if TYPE_CHECKING:
    from rich.console import RenderableType

URL = "http://127.0.0.1:8080"
TIMEOUT_S = 10.0
ROWS_MAX = {"models": MODELS_MAX, "lag": LAGS_MAX}


@click.command(
    epilog="""\b
Examples:
  inferd top
  inferd top --url https://worker-1:8443 --token-file token --ca-file ca.pem
  inferd top --once --output json"""
)
@click.option("--url", default=URL, show_default=True, help="Any worker of the group.")
@click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a token of the role read or monitor.",
)  # fmt: skip
@click.option(
    "--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of the authority of the worker's certificate, for https.",
)  # fmt: skip
@click.option("--every", "every_s", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show it once, for scripts.")
@output_option
def top(
    url: str, token_file: Path | None, ca_file: Path | None, every_s: float, once: bool, output: OutputFormat
) -> None:
    """Show workers, lag, rates, latency, models, jobs and routes of the cluster, as any of its workers knows them.

    Rates and latency are those of the last ten seconds. Ctrl-C ends it.
    """
    cluster = Cluster(url, token_file, ca_file)
    if output == "json":
        write_json(json_of(view_of(cluster.ask())))
    elif once:
        _write(view_of(cluster.ask()))
    else:
        _live(cluster, every_s)


class Cluster:
    """Asks a worker about all of them."""

    def __init__(self, url: str, token_file: Path | None, ca_file: Path | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r}: expected http://HOST:PORT or https://HOST:PORT", param_hint="--url")
        self._url = url.rstrip("/")
        self._token_file = token_file
        try:
            self._tls = client_context(None if ca_file is None else str(ca_file), None, None)
        except OSError as error:
            raise click.BadParameter(f"{ca_file}: {error}; expected a PEM file", param_hint="--ca-file") from None

    def ask(self) -> Any:
        """The answer of `GET /cluster`; `ServerError` if there is none."""
        headers = {"accept": "application/json"}
        if self._token_file is not None:
            # Read each time: tokens rotate.
            headers["authorization"] = f"Bearer {self._token_file.read_text(encoding='utf-8').strip()}"
        request = urllib.request.Request(f"{self._url}/cluster", headers=headers)  # noqa: S310  (checked)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ServerError(f"{self._url} answered {error.code}: {_message(error.read())}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"{self._url} does not answer ({reason}): is a worker running there? See --url"
            ) from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _write(view: View) -> None:
    write_table(tuple(name for name, _ in view.summary), [[value for _, value in view.summary]])
    for line in view.trouble:
        report(line)
    for section in view.sections:
        if section.rows:
            click.echo()
            write_table(section.columns, section.rows)
        elif section.empty:
            report(section.empty)


def _live(cluster: Cluster, every_s: float) -> None:
    from rich.live import Live

    view = view_of(cluster.ask())
    lost: str | None = None
    with Live(_screen(view, lost), screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                try:
                    view, lost = view_of(cluster.ask()), None
                except ServerError as error:
                    lost = error.message
                live.update(_screen(view, lost), refresh=True)
        except KeyboardInterrupt:
            return


def _screen(view: View, lost: str | None) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    summary = Text("  ".join(f"{name} {value}" for name, value in view.summary), style="bold")
    parts: list[RenderableType] = [summary]
    if lost is not None:
        parts.append(Text(f"connection lost, the last values are shown: {lost}", style="bold red"))
    parts += [Text(line, style="yellow") for line in view.trouble]
    for section in view.sections:
        if not section.rows:
            if section.empty:
                parts.append(Text(section.empty, style="dim"))
            continue
        shown = section.rows[: ROWS_MAX.get(section.title, len(section.rows))]
        table = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, column in enumerate(section.columns):
            table.add_column(column, justify="left" if place < 2 else "right", overflow="ellipsis", no_wrap=True)
        for row in shown:
            table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
        parts.append(table)
        if len(shown) < len(section.rows):
            parts.append(Text(f"… {len(section.rows) - len(shown)} more: inferd top --once", style="dim"))
    return Group(*parts)
