"""Generates docs/settings.md and docs/metrics.md: `python -m inferd.daemon.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from inferd.daemon.settings import AT_MOST, Settings, settings_table
from inferd.daemon.telemetry import METRICS, STEPS

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Made by `python -m inferd.daemon.reference`; change the code instead. -->"


ABOUT_SETTINGS = """\
Each setting is an environment variable, and a flag of `inferd worker` and `inferd up` that overrides it. An empty
variable counts as not set. A wrong value, or a variable `INFERD_…` that is not in this list, ends the process with exit
code 2 and one line for each error. `INFERD_TEST_…` are reserved for the tests."""
ABOUT_RULES = """\
`SASL_PLAINTEXT` and `SASL_SSL` need a user name, and a password or a password file, or, for `OAUTHBEARER`, a source of
tokens ([access.md](access.md)); TLS files need `SSL` or
`SASL_SSL`. The password file, and TLS files that have changed, are read before the next connection to a broker. An
`INFERD_HTTP_HOST` that other machines can reach needs `INFERD_HTTP_TOKENS_FILE`, or `INFERD_INSECURE_HTTP=true`."""
ABOUT_METRICS = """\
`GET /metrics` exports these for Prometheus, in base units (seconds, bytes), besides `process_…`, `python_info` and
`python_gc_…` of the Python client. Counters start at zero with the process. Metrics of the streams are absent until the
streams have been started. Label values come from configured tenants, from deployed models and from fixed sets, never
from a request."""

ABOUT_STEPS = """\
The values of `step` in `inferd_step_seconds`: first the steps of requests, then those of batch jobs. The steps from
`validate` to `postprocess` add up to `inferd_infer_seconds`. Spans in traces have the same names
([operations.md](operations.md#traces))."""


def settings_page() -> str:
    """docs/settings.md: every setting by section, and the rules between settings."""
    parts = ["# Settings", MADE, ABOUT_SETTINGS]
    for section in Settings.SECTIONS:
        rows = [
            (f"`{info.variable}`", _code(info.flag), _code(info.shown_default), info.kind.allowed, info.meaning)
            for info in settings_table()
            if info.section == section
        ]
        parts += [f"## {section}", _table(("variable", "flag", "default", "allowed", "meaning"), rows)]
    variables = {info.field: f"`{info.variable}`" for info in settings_table()}
    rules = [(variables[bound.field], bound.words + variables[bound.of], bound.reason) for bound in AT_MOST]
    parts += ["## Between settings", _table(("setting", "is at most", "because"), rules), ABOUT_RULES]
    return "\n\n".join(parts) + "\n"


def metrics_page() -> str:
    """docs/metrics.md: every metric of `/metrics`."""
    rows = [
        (f"`{info.name}`", info.type, ", ".join(f"`{label}`" for label in info.labels), info.meaning)
        for info in METRICS
    ]
    steps = [(f"`{step}`", meaning) for step, meaning in STEPS.items()]
    parts = ["# Metrics", MADE, ABOUT_METRICS, _table(("name", "type", "labels", "meaning"), rows)]
    parts += ["## Steps", ABOUT_STEPS, _table(("step", "what happens"), steps)]
    return "\n\n".join(parts) + "\n"


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page}


def main() -> None:
    """Writes the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    main()
