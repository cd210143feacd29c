"""Builds the compiled kernels when inferd is installed. Where that fails, inferd works without them."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "inferd/streams/inference/kernels"
SOURCE, LIBRARY, DIGESTS = "kernels.c", "_kernels.so", "_kernels.sha256"
"""File names; the source includes the other C files of its folder."""
# No fast mathematics and no fused operations: results are held to those of other libraries bit for bit.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-s")
GLIBC = "2.17"


class BuildError(Exception):
    """The kernels could not be built; the message says why."""


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the library into the wheel; for an editable installation, beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        self._built = Path(tempfile.mkdtemp(prefix="inferd-kernels-"))
        folder = Path(self.root) / FOLDER
        try:
            build(folder / SOURCE, self._built)
            if version == "editable":
                place(self._built, folder)
                return
        except (BuildError, OSError) as error:
            self.app.display_warning(f"inferd works without its compiled kernels, which could not be built: {error}")
            return
        build_data["force_include"] |= {str(self._built / name): f"{FOLDER}/{name}" for name in (LIBRARY, DIGESTS)}
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        if self.target_name == "wheel":
            shutil.rmtree(self._built, ignore_errors=True)


def build(source: Path, folder: Path) -> None:
    """Writes the library and the digests into `folder`; `BuildError` if no compiler can."""
    if sys.platform != "linux":
        raise BuildError(f"they are built on Linux alone, this is {sys.platform}")
    faults = []
    for compiler in compilers():
        fault = compile_with(compiler, source, folder / LIBRARY)
        if fault is None:
            files = (*sorted(source.parent.glob("*.c")), folder / LIBRARY)
            digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
            (folder / DIGESTS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
            return
        faults.append(f"{' '.join(compiler)}: {fault}")
    raise BuildError("; ".join(faults) or "there is no C compiler, and the package ziglang is not installed")


def compilers() -> list[tuple[str, ...]]:
    """The compilers of this machine: first the one that is the same everywhere."""
    found: list[tuple[str, ...]] = []
    if importlib.util.find_spec("ziglang"):
        # Without a target, it would build for this very processor.
        found.append((sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-gnu.{GLIBC}"))
    return [*found, *((path,) for path in map(shutil.which, ("cc", "gcc", "clang")) if path)]


def compile_with(compiler: tuple[str, ...], source: Path, library: Path) -> str | None:
    """Why the library could not be built or loaded; None if it could."""
    with tempfile.TemporaryDirectory(prefix="inferd-kernels-") as cache:
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), cache)
        command = [*compiler, *FLAGS, "-o", str(library), str(source)]
        try:
            subprocess.run(command, env={**os.environ, **caches}, check=True, capture_output=True, timeout=600)
            ctypes.CDLL(str(library))
        except subprocess.CalledProcessError as error:
            return " ".join(error.stderr.decode("utf-8", "replace").split())[-300:] or str(error)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return None


def place(built: Path, folder: Path) -> None:
    """Moves what was built to its place, each file at once: a process may run from there."""
    for name in (LIBRARY, DIGESTS):
        temporary = folder / f"{name}.new"
        shutil.copyfile(built / name, temporary)
        temporary.replace(folder / name)
