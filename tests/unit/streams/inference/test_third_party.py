"""Formats of other packages: found by their entry points, imported when needed, reported if they are unusable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferd.daemon.checks.machine import check_model_formats
from inferd.schemas.errors import InternalError, MalformedError
from inferd.streams.inference import FormatReport, all_formats, describe_formats, format_named, load_model, read_model
from inferd.streams.inference.registry import recognise
from inferd.streams.inference.third_party import third_party_formats
from inferd.streams.serving import ModelManager, RealtimePredictor
from tests.unit.streams.inference.trained_models import Trained

GROUP = "inferd.model_formats"
TOY = "from dataclasses import replace\nfrom tests.fixtures.toy_format import TOY\n"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module of the same name, whose metadata has these entry points."""
    installed = []

    def write(package: str, entry_points: str, source: str = "") -> None:
        (tmp_path / f"{package}.py").write_text(source)
        information = tmp_path / f"{package}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(entry_points)
        installed.append(package)
        third_party_formats.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    third_party_formats.cache_clear()
    for package in installed:
        sys.modules.pop(package, None)


def report(name: str, package: str, *, load: bool = True) -> FormatReport:
    (found,) = [each for each in describe_formats(load=load) if (each.name, each.package) == (name, f"{package} 1.0")]
    return found


def test_a_format_serves_in_a_script_after_a_trial_in_another_process(install: Install, tmp_path: Path) -> None:
    install("toy_package", f"[{GROUP}]\ntoy = toy_package:TOY\n", TOY)
    manager = ModelManager(tmp_path / "models")
    content = b'TOY {"features": [{"name": "a"}, {"name": "body", "dtype": "text"}]}'
    assert manager.register("hashes", content).runtime == "toy"
    predictor = RealtimePredictor(manager)
    assert predictor.predict("hashes", [1, "x"]) == predictor.predict("hashes", {"body": "x", "a": 1})
    assert predictor.predict("hashes", [1, "x"]) != predictor.predict("hashes", [1, "y"])


def test_a_format_is_imported_when_needed(install: Install, trained: Callable[[str], Trained]) -> None:
    install("toy_package", f"[{GROUP}]\ntoy = toy_package:TOY\n", TOY)
    read_model(trained("binary").text)
    format_named("lightgbm")
    assert report("toy", "toy_package", load=False) == FormatReport("toy", "toy_package 1.0", None, None)
    assert "toy_package" not in sys.modules
    assert format_named("toy").begins == "TOY"
    assert report("toy", "toy_package", load=False) == FormatReport("toy", "toy_package 1.0", "1", None)


def test_formats_of_inferd_take_precedence(install: Install, trained: Callable[[str], Trained]) -> None:
    install("greedy", f"[{GROUP}]\ntoy = greedy:G\n", TOY + "G = replace(TOY, sniff=lambda content: True)")
    assert recognise(trained("binary").text).name == "lightgbm"
    assert recognise(b"anything else").name == "toy"


@pytest.mark.parametrize(
    ("entry", "source", "problem"),
    [
        ("toy = bad_package:TOY", "import no_such_library", "cannot be imported: ModuleNotFoundError: No module named"),
        ("toy = bad_package:TOY", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("toy = bad_package:TOY", "import sys; sys.exit('bye')", "cannot be imported: SystemExit: bye"),
        ("toy = bad_package:TOY", "def", "cannot be imported: SyntaxError"),
        ("toy = bad_package:MISSING", TOY, "cannot be imported: AttributeError"),
        ("toy = not a module", TOY, "cannot be imported: "),
        ("toy = bad_package:TOY", "TOY = {}", "is of type dict, and not a ModelFormat"),
        ("toy = bad_package", TOY, "is of type module, and not a ModelFormat"),
        ("other = bad_package:TOY", TOY, "is named 'toy', and its entry point 'other'"),
        ("toy = bad_package:BAD", TOY + "BAD = replace(TOY, load=None, sniff=1)", "sniff, load is of a wrong type"),
        ("toy = bad_package:BAD", TOY + "BAD = replace(TOY, begins=b'TOY')", "begins is of a wrong type"),
        ("Toy = bad_package:TOY", TOY, "its name does not match"),
        ("xgboost = bad_package:TOY", TOY, "the name is taken by inferd"),
    ],
)
def test_an_unusable_format_is_named_and_affects_no_other(
    install: Install, trained: Callable[[str], Trained], entry: str, source: str, problem: str
) -> None:
    install("bad_package", f"[{GROUP}]\n{entry}\n", source)
    install("good_package", f"[{GROUP}]\nfine = good_package:FINE\n", TOY + "FINE = replace(TOY, name='fine')")
    name = entry.split(" ", maxsplit=1)[0]
    assert problem in str(report(name, "bad_package").problem)
    assert [each.name for each in all_formats()][-1] == "fine"
    assert recognise(trained("binary").text).name == "lightgbm"
    assert recognise(b"TOY {}").name == "fine"
    listed, warning = check_model_formats()
    assert listed.detail.endswith(", fine 1 (good_package 1.0)")
    assert (warning.state, warning.remedy) == ("warn", "correct or uninstall bad_package 1.0")
    assert f"'{name}' of bad_package 1.0 cannot be used: " in warning.detail
    if name != "xgboost":
        with pytest.raises(MalformedError, match=f"'{name}' of bad_package 1.0 cannot be used.*does not begin with"):
            read_model(b"no format's")
    if name in ("toy", "other"):
        with pytest.raises(InternalError, match=f"model format '{name}' of bad_package 1.0 cannot be used: "):
            format_named(name)


def test_a_name_belongs_to_the_first_package_in_the_alphabet(install: Install) -> None:
    install("b_package", f"[{GROUP}]\ntoy = b_package:TOY\n", TOY)
    install("a_package", f"[{GROUP}]\ntoy = a_package:TOY\n", TOY)
    assert report("toy", "a_package").problem is None
    assert report("toy", "b_package").problem == "the name is taken by a_package 1.0"
    assert format_named("toy").name == "toy"
    assert "b_package" not in sys.modules


@pytest.mark.parametrize("damage", [f"[{GROUP}]\nno entry point\n", f"[{GROUP}]\n= \n"])
def test_damaged_metadata_hides_no_other_package(install: Install, damage: str) -> None:
    install("damaged_package", damage, TOY)
    install("good_package", f"[{GROUP}]\ntoy = good_package:TOY\n", TOY)
    assert format_named("toy").name == "toy"
    (broken,) = [each for each in describe_formats(load=True) if each.package == "damaged_package 1.0"]
    assert broken.problem is not None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("read=lambda content, limits: 1 / 0", "fails: ZeroDivisionError"),
        ("read=lambda content, limits: None", "fails: TypeError: read gives None, and not a ModelFile"),
        ("read=lambda content, limits: replace(TOY.read(content, limits), runtime='lightgbm')", "not a ModelFile with"),
        ("sniff=lambda content: 1 / 0", "formats 'toy' cannot be used .*; does not begin with"),
    ],
)
def test_exceptions_of_a_format_become_errors_of_the_file(install: Install, change: str, error: str) -> None:
    install("bad_package", f"[{GROUP}]\ntoy = bad_package:BAD\n", TOY + f"BAD = replace(TOY, {change})")
    with pytest.raises(MalformedError, match=error):
        read_model(b'TOY {"features": [{"name": "a"}]}')


def test_exceptions_of_loading_name_the_format(install: Install, tmp_path: Path) -> None:
    install("bad_package", f"[{GROUP}]\ntoy = bad_package:BAD\n", TOY + "BAD = replace(TOY, load=lambda *_: 1 / 0)")
    (tmp_path / "model").write_bytes(b'TOY {"features": [{"name": "a"}]}')
    manager = ModelManager(tmp_path / "models")
    manifest = manager.register("m", tmp_path / "model", trial=False)
    with pytest.raises(InternalError, match=r"model format 'toy' of bad_package 1\.0 fails: ZeroDivisionError"):
        load_model(tmp_path / "model", manifest)
