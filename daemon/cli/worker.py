"""`inferd worker`: runs one worker in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from inferd.daemon.cli.options import output_option, with_local_broker
from inferd.daemon.cli.output import OutputFormat, write_json
from inferd.daemon.cli.setting_flags import SettingsCommand, setting_flags, worker_settings
from inferd.daemon.supervision import StopSignals, end_within

EXIT_TIMEOUT_S = 3.0


@click.command(cls=SettingsCommand, epilog="Example: inferd worker --broker kafka:9092 --tenants default,acme")
@output_option
@setting_flags
def worker(output: OutputFormat, **flags: Any) -> None:
    """Run a worker until SIGTERM or Ctrl-C: it scores the requests of its tenants.

    It waits for its broker without a time limit. It stops gracefully: it finishes requests in flight, commits, and
    leaves the consumer group. A second signal stops it immediately; unfinished work is not committed.

    Exit codes: 0 graceful stop, 1 failure, 2 invalid settings, 70 the stop exceeded its deadline, 71 no progress,
    72 the event loop was blocked, 130 or 143 a second signal.
    """
    settings = with_local_broker(worker_settings(flags))
    with StopSignals() as early:  # modules take a second or two to load
        from inferd.daemon.process import Parts, run_worker
    if early.name is not None:
        return

    def announce(url: str) -> None:
        if output == "json":
            write_json({"worker": settings.worker_id, "url": url, "pid": os.getpid()})
        else:
            click.echo(f"worker {settings.worker_id} on {url}")

    code = run_worker(settings, Parts(on_listening=announce))
    # Threads of libraries must not keep the process alive.
    end_within(EXIT_TIMEOUT_S, code)
    sys.exit(code)
