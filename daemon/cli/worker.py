"""`inferd worker`: one worker in the foreground."""

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

    It waits for its broker as long as it takes, and stops in order: it finishes what is in flight, commits, and leaves
    the consumer group. A second signal ends it at once, nothing unfinished committed.

    Exit codes: 0 stopped in order, 1 failed, 2 wrong settings, 70 the stop took too long, 71 no progress,
    72 the event loop stood still, 130 or 143 a second signal.
    """
    settings = with_local_broker(worker_settings(flags))
    with StopSignals() as early:  # modules take a second or two to load
        from inferd.daemon.process import Parts, run_worker
    if early.name is not None:
        return

    def say_where(url: str) -> None:
        if output == "json":
            write_json({"worker": settings.worker_id, "url": url, "pid": os.getpid()})
        else:
            click.echo(f"worker {settings.worker_id} on {url}")

    code = run_worker(settings, Parts(on_listening=say_where))
    # Threads of libraries must not keep the process once it has stopped.
    end_within(EXIT_TIMEOUT_S, code)
    sys.exit(code)
