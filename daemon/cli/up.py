"""`inferd up`: an embedded broker, a schema registry where one is wanted, and a worker, in one process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import click

from inferd.daemon.cli.options import output_option
from inferd.daemon.cli.output import (
    EXIT_FAILED,
    OutputFormat,
    report,
    write_json,
)
from inferd.daemon.cli.setting_flags import SettingsCommand, setting_flags, worker_settings
from inferd.daemon.settings import DEFAULT_BROKER, Settings
from inferd.daemon.supervision import end_within, leave, terminable

EXIT_TIMEOUT_S = 3.0
Run = Callable[[Settings, OutputFormat], int]


@click.command(cls=SettingsCommand, epilog="Example: inferd up --broker-port 0 --http-port 0")
@click.option("--registry", is_flag=True, help="Run a schema registry, too; 109 MB are downloaded at the first start.")
@output_option
@setting_flags
def up(registry: bool, output: OutputFormat, **flags: Any) -> None:
    """Run an Apache Kafka broker and a worker on this machine until Ctrl-C.

    With INFERD_BROKER (or --broker) it starts no broker; the worker uses that one. The broker's data is kept for the
    next start.
    """
    settings = worker_settings(flags)
    if registry and settings.schema_registry_url is not None:
        raise click.UsageError(
            "--registry starts a schema registry, but INFERD_SCHEMA_REGISTRY_URL names one: drop one"
        )
    run = partial(_with_registry, _run_worker) if registry else _run_worker
    code = run(settings, output) if settings.broker else _with_broker(run, settings, output)
    # Threads of libraries must not keep the process alive.
    end_within(EXIT_TIMEOUT_S, code)
    sys.exit(code)


def _with_broker(run: Run, settings: Settings, output: OutputFormat) -> int:
    from inferd.daemon.broker import EmbeddedKafka
    from inferd.daemon.supervision import SupervisedBroker

    kafka = EmbeddedKafka(settings.embedded_kafka(), report=report)
    with terminable():
        report(f"starting Apache Kafka {kafka.version}")
        # The broker process ends with this process.
        with SupervisedBroker(kafka, on_lost=lambda reason: leave(EXIT_FAILED, reason)):
            report(f"broker on {kafka.bootstrap_servers}, data in {kafka.settings.data_dir}, log in {kafka.log_path}")
            code = run(replace(settings, broker=kafka.bootstrap_servers), output)
            report("stopping the broker")
    return code


def _with_registry(run: Run, settings: Settings, output: OutputFormat) -> int:
    from inferd.daemon.broker import EmbeddedRegistry
    from inferd.daemon.supervision import SupervisedBroker

    registry = EmbeddedRegistry(settings.embedded_registry(), report=report)
    with terminable():
        report(f"starting Apicurio Registry {registry.version}")
        with SupervisedBroker(registry, on_lost=lambda reason: leave(EXIT_FAILED, reason), name="registry"):
            report(f"schema registry on {registry.url}, data in {registry.settings.data_dir}")
            code = run(replace(settings, schema_registry_url=registry.url), output)
            report("stopping the registry")
    return code


def _run_worker(settings: Settings, output: OutputFormat) -> int:
    from inferd.daemon.process import Parts, run_worker

    def announce(url: str) -> None:
        if output == "json":
            write_json({"worker": settings.worker_id, "url": url, "broker": settings.broker})
        else:
            click.echo(next_steps(settings, url))

    return run_worker(settings, Parts(on_started=announce))


def next_steps(settings: Settings, url: str) -> str:
    """Commands to try next, with the addresses of this run."""
    broker = "" if settings.broker == DEFAULT_BROKER else f" --broker {settings.broker}"
    return f"""
inferd is up: broker {settings.broker}, status page {url}/

  deploy a model      inferd models deploy model.txt --name churn{broker}
  predict a row       inferd predict churn '[1.5, 2, 3]'{broker}
  predict a CSV file  inferd predict churn rows.csv{broker}
  list dead letters   inferd dead-letters list{broker}
  check the setup     inferd doctor{broker}
  status as JSON      curl {url}/status

Press Ctrl-C to stop; the data is kept."""
