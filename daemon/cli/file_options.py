"""Options of commands that read a file of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from inferd.daemon.row_files import FORMATS, FileOptions

P = ParamSpec("P")
R = TypeVar("R")
_NAMES = ("format", "skip_columns", "delimiter", "encoding", "na", "decimal")


def _delimiter(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    chosen = {"tab": "\t", "\\t": "\t"}.get(text or "", text)
    if chosen is not None and (len(chosen) != 1 or chosen in '"\r\n'):
        raise click.BadParameter(f"{text!r}: expected one character, or tab")
    return chosen


def _encoding(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    try:
        "\n".encode(text or "utf-8")
    except (LookupError, UnicodeError):
        raise click.BadParameter(f"{text!r} is not a text encoding, such as utf-8, cp1252 or utf-16") from None
    return text


def _na(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...] | None:
    return texts or None


_OPTIONS = (
    click.option("--format", type=click.Choice(FORMATS), help="Format of the file.  [default: from its suffix]"),
    click.option("--skip-column", "skip_columns", multiple=True, metavar="NAME",
                 help="Column that is not a feature; repeatable."),
    click.option("--delimiter", callback=_delimiter, metavar="CHARACTER",
                 help="CSV: one character, or tab.  [default: the one of , ; tab | that fits the header]"),
    click.option("--encoding", callback=_encoding, metavar="NAME",
                 help="CSV and NDJSON: text encoding.  [default: from the byte order mark, or utf-8]"),
    click.option("--na", multiple=True, callback=_na, metavar="TEXT",
                 help="CSV: text of a missing value, besides the empty field; repeatable.  [default: NA, null, NaN,"
                 " None and similar, except where it is a category]"),
    click.option("--decimal", type=click.Choice([".", ","]), default=".", show_default=True,
                 help="CSV: decimal separator of numbers."),
)  # fmt: skip


def file_options(command: Callable[P, R]) -> Callable[..., R]:
    """Adds the options; the command receives them as `file: FileOptions`."""

    @functools.wraps(command)
    def with_file(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = FileOptions(**{name: kwargs.pop(name) for name in _NAMES})  # type: ignore[arg-type]
        return command(*args, **kwargs, file=chosen)  # type: ignore[arg-type]

    decorated: Any = with_file
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
