"""LightGBM loads on systems without an OpenMP runtime, with the copy bundled in a package."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from inferd.schemas.errors import ServerError
from inferd.streams import openmp
from inferd.streams.inference.formats.lightgbm.c_library import Library, library_path
from tests.unit.streams.inference.trained_models import FEATURES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the copy is bundled on Linux only")

WITHOUT_THE_SYSTEMS = """
import sys, numpy
from inferd.streams import openmp
loads = openmp._loads
openmp._loads = lambda path: path != openmp._NAME and loads(path)
openmp.load_openmp()
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
rows = numpy.frombuffer(sys.stdin.buffer.read()).reshape(-1, int(sys.argv[2]))
runtime = LightGBMRuntime(open(sys.argv[1], "rb").read(), num_threads=2)
print(runtime.predict(rows, ("prediction",))["prediction"].tobytes().hex())
print(*{line.split()[5] for line in open("/proc/self/maps") if "libgomp" in line})
"""


def test_lightgbm_uses_the_bundled_copy(trained: object, tmp_path: Path) -> None:
    model = trained("binary")  # type: ignore[operator]
    (tmp_path / "model").write_bytes(model.text)
    command = [sys.executable, "-c", WITHOUT_THE_SYSTEMS, str(tmp_path / "model"), str(FEATURES)]
    run = subprocess.run(command, input=model.rows.tobytes(), capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    predictions, libraries = run.stdout.decode().splitlines()
    assert predictions == model.booster.predict(model.rows).tobytes().hex()
    assert libraries == "/memfd:libgomp.so.1"


def test_the_systems_library_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "_loads", lambda path: path == "libgomp.so.1")
    monkeypatch.setattr(openmp, "_bundled_copies", lambda: pytest.fail("looked for a copy"))
    openmp.load_openmp()


def test_one_copy_is_bundled() -> None:
    # Its file name depends on the package's build: this test fails if a version uses another name.
    (path,) = openmp._bundled_copies()
    assert openmp._RENAMED.subn(openmp._own_name, path.read_bytes())[1] == 1


def test_without_any_copy_the_error_names_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(openmp, "find_spec", lambda _: None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(ServerError, match=r"libgomp1 \(Debian.*libgomp \(Fedora, Alpine\)"):
        Library(library_path())


@pytest.mark.parametrize("content", [b"", b"no library", b"\0libgomp-01234567.so.1.0.0\0" * 2])
def test_another_file_is_not_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "libgomp-x").write_bytes(content)
    assert not openmp._loads_renamed(tmp_path / "libgomp-x")
