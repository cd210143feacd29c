"""Generated pages are current and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inferd.daemon.reference import DOCS, PAGES
from inferd.daemon.settings.settings import Settings, settings_table
from inferd.daemon.settings.table import TEST_PREFIX
from inferd.daemon.telemetry.metrics import METRICS

ROOT = DOCS.parent
PATHS_WITH_SETTINGS = ("README.md", "Procfile", "Makefile", "docs", "deploy", ".ci")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: python -m inferd.daemon.reference"


def test_every_setting_is_in_a_documented_section() -> None:
    assert {info.section for info in settings_table()} == set(Settings.SECTIONS)


def test_names_of_metrics_follow_the_conventions() -> None:
    for info in METRICS:
        assert re.fullmatch(r"inferd_[a-z_]+[a-z]", info.name)
        assert (info.type == "counter") == info.name.endswith("_total"), info.name
        if info.type == "histogram":
            assert info.name.endswith("_seconds")
    assert len({info.name for info in METRICS}) == len(METRICS)


def files_with_settings() -> list[Path]:
    roots = [ROOT / name for name in PATHS_WITH_SETTINGS]
    return sorted(path for root in roots for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file())


def test_documented_variables_exist() -> None:
    known = {info.variable for info in settings_table()}
    for path in files_with_settings():
        for name in re.findall(r"\bINFERD_[A-Z][A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8", errors="replace")):
            assert name in known or name.startswith(TEST_PREFIX), f"{path.relative_to(ROOT)} mentions {name}"
