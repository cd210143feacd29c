"""Options shared by several commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

import click

from inferd.daemon.broker import running_broker_address
from inferd.daemon.cli.output import OutputFormat
from inferd.daemon.settings import DEFAULT_BROKER, SettingInfo, Settings, check_connection, settings_table
from inferd.schemas.connection import KafkaConnection, SchemaRegistryConnection
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.topics import TenantTopics
from inferd.streams.settings import TrialSettings

if TYPE_CHECKING:
    from inferd.client import Client

DEFAULT_TRIAL = TrialSettings()

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a command: one tenant of one namespace on one cluster."""

    connection: KafkaConnection
    namespace: str
    tenant: str
    output: OutputFormat = "table"
    limits: Limits = DEFAULT_LIMITS
    trial: TrialSettings = DEFAULT_TRIAL
    schema_registry: SchemaRegistryConnection | None = None
    group: str = ""
    """The consumer group of the workers."""

    @property
    def topics(self) -> TenantTopics:
        """Names of the tenant's topics."""
        return TenantTopics(self.namespace, self.tenant)

    def client(self) -> Client:
        """A client of the tenant, with the limits of the settings."""
        from inferd.client import Client

        return Client(self.connection, namespace=self.namespace, tenant=self.tenant, limits=self.limits)


def broker_options(command: Callable[P, R]) -> Callable[..., R]:
    """Adds --broker, --namespace, --tenant and --output; the command receives them as `target: Target`."""

    @functools.wraps(command)
    def with_target(*args: Any, **kwargs: Any) -> R:
        settings, output = _settings_of(kwargs)
        return command(*args, **kwargs, target=_target(settings, output))  # type: ignore[arg-type]

    return _with_options(with_target, "The tenant.  [default: the one in INFERD_TENANTS, or default]")


def settings_options(**flags: str) -> Callable[[Callable[P, R]], Callable[..., R]]:
    """Like `broker_options`, for commands on all tenants; they receive `settings: Settings` and `output`.

    `flags` adds further settings, each with a short flag besides its own (`topic_partitions="--partitions"`).
    """

    def decorate(command: Callable[P, R]) -> Callable[..., R]:
        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> R:
            settings, output = _settings_of(kwargs, tuple(flags))
            return command(*args, **kwargs, settings=settings, output=output)  # type: ignore[arg-type]

        decorated: Callable[..., R] = with_settings
        for info in settings_table():
            if info.field in flags and info.flag:
                decorated = _setting_option(info, info.flag, flags[info.field])(decorated)
        return _with_options(decorated, "Comma-separated tenants.  [default: INFERD_TENANTS, or default]")

    return decorate


def output_option(command: Callable[P, R]) -> Callable[P, R]:
    """Adds --output; the command receives it as `output: OutputFormat`."""
    return click.option(
        "--output",
        type=click.Choice(get_args(OutputFormat)),
        default="table",
        show_default=True,
        help="Format of standard output.",
    )(command)


def _with_options(command: Callable[..., R], tenant_help: str) -> Callable[..., R]:
    options = (
        click.option(
            "--broker",
            metavar="HOST:PORT",
            help="Bootstrap servers.  [default: INFERD_BROKER, or the embedded broker of INFERD_DATA_DIR, or"
            f" {DEFAULT_BROKER}]",
        ),
        click.option("--namespace", help="First part of the topic names.  [default: INFERD_NAMESPACE, or inferd]"),
        click.option("--tenant", help=tenant_help),
        output_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _setting_option(info: SettingInfo, flag: str, short: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    default = f"  [default: {info.variable}, or {info.shown_default}]"
    return click.option(flag, short, info.field, metavar=info.kind.name.upper(), help=info.meaning + default)


def _settings_of(kwargs: dict[str, Any], further: tuple[str, ...] = ()) -> tuple[Settings, OutputFormat]:
    """Removes the shared options from `kwargs`. Raises `SettingsError` for an invalid setting or flag."""
    flags = {"broker": kwargs.pop("broker"), "namespace": kwargs.pop("namespace"), "tenants": kwargs.pop("tenant")}
    flags |= {name: kwargs.pop(name) for name in further}
    return check_connection(with_local_broker(Settings.from_environment(flags=flags))), kwargs.pop("output")


def with_local_broker(settings: Settings) -> Settings:
    """`settings`; if they name no broker, with the embedded broker running in their data directory, if any."""
    if settings.broker is not None:
        return settings
    return replace(settings, broker=running_broker_address(settings.embedded_kafka().data_dir))


def _target(settings: Settings, output: OutputFormat) -> Target:
    if len(settings.tenants) > 1:
        raise click.UsageError(f"several tenants are set ({', '.join(settings.tenants)}): choose one with --tenant")
    streams = settings.streams()
    return Target(
        settings.connection(), settings.namespace, settings.tenants[0], output, streams.limits, streams.trial,
        streams.schema_registry, settings.group,
    )  # fmt: skip
