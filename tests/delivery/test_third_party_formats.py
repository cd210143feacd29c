"""The package of docs/customise.md that adds a model format: built, installed, and served by a real worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from inferd import Client
from tests.fixtures.workers import Cluster, StartWorker, Worker, until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "customise.md").read_text(encoding="utf-8")
SOURCES: list[str] = re.findall(
    r"^```(?:toml|python)\n(# (?:pyproject|inferd_coefficients)\.\w+\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)
COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
MODEL = b'{"coefficients": {"age": 0.5, "visits": -2}, "intercept": 1}'
BROKEN = {"toy": "import no_such_library", "list": "FORMAT = []", "xgboost": "FORMAT = None"}
pytestmark = pytest.mark.timeout(300)


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INFERD_")} | environ
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=150, check=False)


def built_wheel(directory: Path) -> Path:
    """The wheel of the package on the page."""
    for source in SOURCES:
        (directory / source.split("\n")[0].removeprefix("# ")).write_text(source)
    done = run(sys.executable, "-c", "import hatchling.build as b; print(b.build_wheel('.'))", cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / done.stdout.split()[-1]


def broken_wheel(directory: Path, name: str, source: str) -> Path:
    """The wheel of a package whose format cannot be used."""
    package, path = f"broken_{name}", directory / f"broken_{name}-1.0-py3-none-any.whl"
    information = f"{package}-1.0.dist-info"
    files = {
        f"{package}.py": source,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/entry_points.txt": f"[inferd.model_formats]\n{name} = {package}:FORMAT\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the packages are installed."""
    directory = tmp_path_factory.mktemp("packages")
    wheels = [built_wheel(directory), *(broken_wheel(directory, *each) for each in BROKEN.items())]
    offline = ("--no-index", "--no-deps", "--quiet", "--target", str(directory / "site"))
    done = run(sys.executable, "-m", "pip", "install", *offline, *map(str, wheels), cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "site"


def formats_of(worker: Worker) -> dict[str, dict[str, Any]]:
    return {each["package"] or each["name"]: each for each in worker.get("/status")[1]["model_formats"]}


async def test_a_format_of_another_package(
    cluster: Cluster, start_worker: StartWorker, installed: Path, tmp_path: Path
) -> None:
    settings = {"PYTHONPATH": str(installed), "INFERD_BROKER": cluster.bootstrap, "INFERD_NAMESPACE": cluster.namespace}
    worker = start_worker(cluster, environ={"PYTHONPATH": str(installed)})
    until(lambda: worker.get("/status")[0] == 200, 60, "a status")
    before = formats_of(worker)
    assert before["inferd-coefficients 1.0"]["version"] is None, "it is not imported before it is needed"
    assert before["broken_xgboost 1.0"]["problem"] == "the name is taken by inferd"
    assert before["lightgbm"]["version"]

    (tmp_path / "model.json").write_bytes(MODEL)
    command = (*COMMAND, "models", "deploy", "model.json", "--name", "linear", "--output", "json")
    deployed = run(*command, cwd=tmp_path, **settings)
    assert deployed.returncode == 0, deployed.stderr
    assert json.loads(deployed.stdout)["runtime"] == "coefficients"

    async with Client(cluster.bootstrap, namespace=cluster.namespace) as client:
        result = await client.predict("linear", [[4.0, 0.25], [1, 1]], timeout_s=100)
    assert result.outputs["prediction"] == [2.5, -0.5]
    after = formats_of(worker)
    assert after["inferd-coefficients 1.0"] == {
        "name": "coefficients", "package": "inferd-coefficients 1.0", "version": "1.0", "problem": None,
    }  # fmt: skip

    checks = json.loads(run(*COMMAND, "doctor", "--output", "json", cwd=tmp_path, **settings).stdout)
    details = {check["detail"]: check["state"] for check in checks if check["name"] == "model formats"}
    (listed, *broken) = details
    assert listed.endswith(", coefficients 1.0 (inferd-coefficients 1.0)")
    names = [each.split(" ")[0] for each in re.sub(r"\(.*?\)", "", listed).split(", ")]
    assert names == ["lightgbm", "xgboost", "catboost", "onnx", "sklearn", "coefficients"]
    assert [detail.split(":")[0] for detail in broken] == [
        f"'{name}' of broken_{name} 1.0 cannot be used" for name in sorted(BROKEN)
    ]
    assert set(details.values()) == {"ok", "warn"}
