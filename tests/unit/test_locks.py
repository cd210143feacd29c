"""The lock files install with the pip of a fresh environment, independent of later releases."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "deploy/requirements.lock", "deploy/build-requirements.lock")
OTHER_LOCKS = {
    "bench/mlserver.lock": ("lightgbm", "xgboost-cpu", "catboost", "scikit-learn", "scipy", "numpy"),
    "tests/heavy/mlflow.lock": ("lightgbm", "xgboost-cpu", "catboost", "onnx", "onnxruntime", "scikit-learn", "skops"),
}
"""The locks of other environments, and the libraries of models in them."""
Pin = tuple[str, frozenset[str]]
"""A package, and the extras it is pinned with."""


def pins_of(lock: str) -> set[Pin]:
    """The pins of a lock that apply here."""
    lines = re.findall(r"^([a-z0-9].*?) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    here = [r for r in requirements if r.marker is None or r.marker.evaluate()]
    return {(canonicalize_name(r.name), frozenset(r.extras)) for r in here}


def asked_for_by(pin: Pin) -> Iterator[Requirement]:
    """The requirements of an installed package, with its pinned extras."""
    name, extras = pin
    for requirement in map(Requirement, metadata.requires(name) or ()):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_requirements_of_a_pin_are_pinned_with_the_same_extras(lock: str) -> None:
    # pip 23 requires the newest `coverage[toml]` if a lock has `coverage`, and then lacks its hash.
    pins = pins_of(lock)
    asked = {(canonicalize_name(r.name), frozenset(r.extras)) for pin in pins for r in asked_for_by(pin)}
    bare = {(name, frozenset[str]()) for name, _ in pins}
    assert asked - bare <= pins
    assert {name for name, _ in asked} <= {name for name, _ in pins}


def test_the_lock_of_this_environment_has_extras() -> None:
    assert ("coverage", frozenset({"toml"})) in pins_of("requirements-dev.lock")


def lines_of(lock: str, names: Collection[str]) -> set[str]:
    """The pins of packages, with their markers."""
    lines = re.findall(r"^([a-z0-9].*?) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return {line for line in lines if line.partition("==")[0] in names}


@pytest.mark.parametrize("lock", OTHER_LOCKS)
def test_libraries_of_models_have_the_same_versions_in_other_environments(lock: str) -> None:
    names = OTHER_LOCKS[lock]
    assert lines_of(lock, names) == lines_of("requirements-dev.lock", names) != set()


@pytest.mark.parametrize("lock", [*LOCKS, *OTHER_LOCKS])
def test_every_pin_has_a_hash_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)
    assert re.findall(r"^[a-z0-9].*(?<!\\)$", text, re.MULTILINE) == []
    assert re.findall(r"\\\n(?!    --hash=sha256:)", text) == []


def add_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    info = f"{name}-{version}.dist-info"
    about = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *requires, ""]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(about))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def lock_command(options: str) -> list[str]:
    """The command of `make lock` for the developers' lock."""
    make = ["make", "--dry-run", "--always-make", "lock", f"VENV={sys.prefix}", f"UPGRADE={options}"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = [line for line in printed.replace("\\\n", "").splitlines() if "-o requirements-dev.lock" in line]
    return shlex.split(command)


def test_a_lock_installs_with_the_pip_of_a_fresh_environment_though_newer_versions_exist(tmp_path: Path) -> None:
    with_extra = ("Provides-Extra: more", "Requires-Dist: third; extra == 'more'")
    add_wheel(tmp_path, "first", "1.0", "Requires-Dist: second[more]>=1")
    add_wheel(tmp_path, "second", "1.0", *with_extra)
    add_wheel(tmp_path, "third", "1.0")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "ours"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["first"]\n'
    )
    subprocess.run(lock_command("--no-index --find-links ."), cwd=tmp_path, check=True)
    add_wheel(tmp_path, "second", "2.0", *with_extra)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    pip = [str(tmp_path / "fresh/bin/python"), "-m", "pip", "--isolated", "install", "--no-index", "--find-links", "."]
    install = [*pip, "--require-hashes", "-r", "requirements-dev.lock"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "first-1.0 second-1.0 third-1.0" in done.stdout
