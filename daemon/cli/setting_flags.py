"""Flags of `inferd worker` and `inferd up`: one per setting, grouped by section in the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from inferd.daemon.settings import SettingInfo, Settings, check_worker, settings_table

F = TypeVar("F", bound=Callable[..., Any])
ALIASES = {"--tenants": ("--tenant",)}


def setting_flags(command: F) -> F:
    """Adds a flag for each setting that has one; the command receives their texts as keyword arguments."""
    for info in reversed(settings_table()):
        if info.flag is not None:
            command = _option(info, info.flag)(command)
    return command


def worker_settings(flags: dict[str, Any]) -> Settings:
    """The settings of a worker from these flags and the environment. Raises `SettingsError` if one is invalid."""
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in flags.items()}
    return check_worker(Settings.from_environment(flags=texts))


class SettingsCommand(click.Command):
    """A command whose help groups the flags by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options first, then each section of settings."""
        sections = {info.field: info.section for info in settings_table()}
        rows: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                rows.setdefault(sections.get(param.name or "", "Options"), []).append(record)
        for section, records in rows.items():
            with formatter.section(section):
                formatter.write_dl(records)


def _option(info: SettingInfo, flag: str) -> Callable[[F], F]:
    default = f"  [{info.variable}; default: {info.shown_default or 'none'}]"
    names = (f"{flag}/--no-{flag[2:]}",) if info.kind.name == "switch" else (flag, *ALIASES.get(flag, ()))
    metavar = None if info.kind.name == "switch" else info.kind.name.upper()
    return click.option(*names, info.field, default=None, metavar=metavar, help=info.meaning + default)
