"""Output of the demo: steps, tables of results, and checks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDTH_MAX = 110
STEP_CHARS = 10


@dataclass(slots=True)
class Step:
    """A step of the demo; its lines are written when it has finished."""

    name: str
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Adds a line about the result of the step."""
        self.lines.append(text)


@dataclass(frozen=True, slots=True)
class Check:
    """A condition for the success of the demo."""

    what: str
    passed: bool


class Narrator:
    """Writes to standard output; on a terminal with colours, and a spinner while a step is running."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.console.width = min(self.console.width, WIDTH_MAX) if self.console.is_terminal else WIDTH_MAX
        self.checks: list[Check] = []

    def title(self, text: str, below: str) -> None:
        """Writes a title with a subtitle."""
        self.console.print(f"\n[bold]{text}[/]\n[dim]{below}[/]\n")

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Runs a block as one step, and then writes its lines and its duration."""
        step, started = Step(name), time.monotonic()
        with self.console.status(f"[cyan]{name:{STEP_CHARS}}[/] {escape(doing)}"):
            yield step
        seconds = f"{time.monotonic() - started:.1f} s"
        first, *more = step.lines or [doing]
        room = self.console.width - STEP_CHARS - len(seconds) - 4
        self.console.print(
            f"[bold cyan]{name:{STEP_CHARS}}[/]  {escape(first):{room}}  [dim]{seconds}[/]", soft_wrap=True
        )
        for line in more:
            self.console.print(f"{'':{STEP_CHARS}}  {escape(line)}", soft_wrap=True)

    def progress(self, line: str) -> None:
        """Writes the progress of a long operation, such as a download."""
        self.console.print(f"{'':{STEP_CHARS}}  [dim]{escape(line)}[/]", soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """Writes a table; columns whose name begins with `>` are right-aligned. Without names there is no header."""
        named = any(column.lstrip(">") for column in columns)
        table = Table(box=box.SIMPLE_HEAD if named else None, show_header=named, show_edge=False)
        for column in columns:
            justify: JustifyMethod = "right" if column.startswith(">") else "left"
            table.add_column(column.lstrip(">"), justify=justify, no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.heading(title)
        self.console.print(table)

    def text(self, text: str) -> None:
        """Writes unformatted text."""
        self.console.print(text, markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Writes a heading."""
        self.console.print(f"\n[bold]{escape(text)}[/]")

    def check(self, what: str, passed: bool) -> None:
        """Records the result of a check, for `write_checks`."""
        self.checks.append(Check(what, bool(passed)))

    def write_checks(self) -> bool:
        """Writes all checks; returns whether all passed."""
        self.heading("Checks")
        for check in self.checks:
            mark = "[green]✓[/]" if check.passed else "[bold red]✗[/]"
            self.console.print(f"  {mark} {escape(check.what)}", soft_wrap=True)
        return all(check.passed for check in self.checks)
