"""Installed, inferd is one top-level package, `inferd`, which conflicts with no module of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = ("schemas", "streams", "daemon")
PROGRAM = """
import daemon, schemas, streams
import inferd, inferd.daemon.cli, inferd.streams.app
from inferd import Client, ModelManager, ModelServer
assert {daemon.WHOSE, schemas.WHOSE, streams.WHOSE} == {"the user's"}
print(inferd.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_has_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
        installed = set(archive.namelist())
    assert {name for name in names if not name.endswith(".dist-info")} == {"inferd"}
    sources = [path for name in OTHERS for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = {f"inferd/{path.relative_to(ROOT).as_posix()}" for path in sources if "__pycache__" not in path.parts}
    assert wanted <= installed, wanted - installed


def test_modules_of_the_user_keep_their_names(wheel: Path, tmp_path: Path) -> None:
    site, project = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    project.mkdir()
    for name in OTHERS:
        (project / f"{name}.py").write_text('WHOSE = "the user\'s"\n', encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(project), str(site)))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(site)
