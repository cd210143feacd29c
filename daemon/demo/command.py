"""The command `inferd demo`."""

from __future__ import annotations

import click


@click.command(epilog="Example: inferd demo --flights 5000")
@click.option("--flights", type=click.IntRange(100), help="Stream only so many flights.  [default: two months of them]")
@click.option("--latency-s", type=click.FloatRange(0.5), default=5.0, show_default=True,
              help="How long to measure latency for.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1), default=200.0, show_default=True,
              help="Requests a second while latency is measured.")  # fmt: skip
@click.pass_context
def demo(ctx: click.Context, flights: int | None, latency_s: float, rate: float) -> None:
    """See it work: a Kafka broker, a worker, a model of real flights, and its predictions.

    Trains LightGBM on flights of ten months, deploys it through Kafka, streams the flights of the next two months as
    single-row requests and compares the results with the truth and with LightGBM itself. Needs inferd[broker,demo].
    With INFERD_BROKER it uses that broker, in topics of its own, which it deletes. Exit code 1 if any check fails.
    """
    from inferd.daemon.demo.story import DemoOptions, run_demo
    from inferd.daemon.settings import Settings, check_connection

    settings = check_connection(Settings.from_environment())
    if not run_demo(settings, DemoOptions(flights, latency_s, rate)):
        ctx.exit(1)
