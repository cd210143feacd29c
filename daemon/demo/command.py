"""The command `inferd demo`."""

from __future__ import annotations

import click


@click.command(epilog="Example: inferd demo --flights 5000")
@click.option("--flights", type=click.IntRange(100), help="Number of flights to stream.  [default: all of two months]")
@click.option("--latency-s", type=click.FloatRange(0.5), default=5.0, show_default=True,
              help="Duration of the latency measurement.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1), default=200.0, show_default=True,
              help="Requests per second of the latency measurement.")  # fmt: skip
@click.option("--rollouts/--no-rollouts", default=True, show_default=True,
              help="Roll out a better and a bad version on live traffic.")  # fmt: skip
@click.pass_context
def demo(ctx: click.Context, flights: int | None, latency_s: float, rate: float, *, rollouts: bool) -> None:
    """Run a demo: a Kafka broker, a worker, a model of real flights, and its predictions.

    Trains LightGBM on the flights of ten months, deploys it through Kafka, streams the flights of the next two months
    as single-row requests, and compares the results with the true outcomes and with LightGBM itself. Then it rolls out
    two more versions on live traffic, of which a guard rolls back the bad one. Needs
    inferd[broker,demo]. With INFERD_BROKER it uses that broker, with its own topics, which it deletes. Exit code 1 if
    any check fails.
    """
    from inferd.daemon.demo.story import DemoOptions, run_demo
    from inferd.daemon.settings import Settings, check_connection

    settings = check_connection(Settings.from_environment())
    if not run_demo(settings, DemoOptions(flights, latency_s, rate, rollouts)):
        ctx.exit(1)
