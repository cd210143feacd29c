"""Trials in a disposable process: each case gets one verdict, whatever the model does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.schemas.errors import InternalError, ServerError
from inferd.schemas.models.model import Feature
from inferd.streams.inference.formats.lightgbm import format as lightgbm_format
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial import process as trial_process
from inferd.streams.models.trial.confinement import NICENESS, OOM_SCORE
from inferd.streams.models.trial.process import CaseFile, Verdict
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.trained_models import KINDS, PandasTrained, Trained
from tests.unit.streams.models.scripted_trial import HANGING_NAME

Train = Callable[[str], Trained]
GOOD = Verdict(True, None, 7)
SCRIPTED = ("-m", "tests.unit.streams.models.scripted_trial")
LIMITS = TrialLimits(memory_bytes=3 * 2**29, cpu_s=1.0, wall_s=60.0)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started."""
    started: list[Any] = []
    popen = subprocess.Popen

    def counted(*arguments: Any, **how: Any) -> Any:
        started.append(popen(*arguments, **how))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)
    return started


def run_command(*commands: str, limits: TrialLimits = LIMITS) -> list[Verdict]:
    return try_models([TrialCase(command.encode()) for command in commands], limits, child=SCRIPTED)


def test_models_of_every_kind_pass_in_one_process(trained: Train, starts: list[Any], tmp_path: Path) -> None:
    cases = [TrialCase(trained(name).text) for name in KINDS]
    (tmp_path / "model.txt").write_bytes(trained("multiclass").text)
    verdicts = try_models([*cases, TrialCase(tmp_path / "model.txt")])
    assert [verdict.reason for verdict in verdicts] == [None] * (len(KINDS) + 1)
    assert verdicts[-1] == Verdict(True, None, 3)
    assert len(starts) == 1


def test_the_memory_of_a_model_is_that_of_another_copy(trained: Train) -> None:
    text = trained("binary").text
    cases = [TrialCase(text, manifest_of(text, "m", 1)) for _ in range(6)]
    sizes = [verdict.resident_bytes for verdict in try_models(cases, measure=True)]
    assert min(sizes[1:]) > 2**12, "also if the copy reuses memory that was freed before"
    assert max(sizes[1:]) < 1.5 * min(sizes[1:])
    assert sizes[0] < 2**20, "without the library's memory that all models share"
    assert try_models(cases[:1])[0].resident_bytes == 0


def test_no_models() -> None:
    assert try_models([]) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("abort", "aborted (SIGABRT)"),
        ("segfault", "crashed (SIGSEGV)"),
        ("exit", "ended with exit status 3"),
        ("killed", "was killed (SIGKILL): the machine may be out of memory"),
        ("spin", "used more than 1 s of processor time"),
        ("allocate", "needs more than 1.5 GiB of memory"),
    ],
)
def test_a_death_is_the_verdict_on_one_model(command: str, reason: str, starts: list[Any]) -> None:
    assert run_command("good", command, "good", "good") == [GOOD, Verdict(False, reason), GOOD, GOOD]
    assert len(starts) == 2


def test_a_model_that_hangs_is_given_up() -> None:
    limits = TrialLimits(wall_s=0.3)
    assert run_command("good", "hang", "good", limits=limits) == [GOOD, Verdict(False, "did not finish in 0.3 s"), GOOD]


def test_every_model_is_bad(starts: list[Any]) -> None:
    commands = ["abort", "segfault", "exit"]
    assert [verdict.ok for verdict in run_command(*commands)] == [False] * 3
    assert len(starts) == 3
    assert all(process.returncode is not None for process in starts)


def test_running_out_of_memory_is_a_verdict() -> None:
    assert [verdict.ok for verdict in run_command("good", "allocate")] == [True, False]


def test_output_of_the_library_is_not_a_verdict() -> None:
    assert run_command("print", "good") == [GOOD, GOOD]


def test_a_trial_can_write_no_file() -> None:
    verdict = run_command("write a file")[0]
    assert not verdict.ok
    assert "File too large" in (verdict.reason or "")


def test_a_trial_inherits_no_environment_or_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_SASL_PASSWORD", "secret")
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        reason = run_command("show environment")[0].reason or ""
    finally:
        os.close(reading)
        os.close(writing)
    environment, descriptors, stdin, folder, limits = json.loads(reason.removeprefix("cannot be read: "))
    assert set(environment) <= {
        "PYTHONPATH", "LC_ALL", "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH"
    }  # fmt: skip
    # The three standard ones, the verdicts', the plan, the model, and the one that lists them.
    assert len(descriptors) == 7
    assert stdin == os.devnull
    assert folder == "/"
    assert all(line.split()[-3:-1] == ["0", "0"] for line in limits)


@pytest.mark.parametrize(
    "command", ["fork", "start a program", "exec a program", "open a socket", "open a pair of sockets"]
)
def test_a_trial_cannot_start_processes_or_open_sockets(command: str) -> None:
    assert run_command(command) == [Verdict(False, "cannot be read: Operation not permitted")]


def test_a_trial_has_a_low_priority(starts: list[Any]) -> None:
    niceness, oom_score = json.loads((run_command("show priority")[0].reason or "").removeprefix("cannot be read: "))
    assert (niceness, oom_score) == (min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19), OOM_SCORE)


WORKER = """
import sys
from inferd.streams.models.trial.trial import TrialCase, try_models
try_models([TrialCase(b"set name and hang")], child=("-m", "tests.unit.streams.models.scripted_trial"))
"""


def test_a_killed_worker_leaves_no_trial_process(tmp_path: Path) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path.cwd())}
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment)
    try:
        until(lambda: bool(_children(worker.pid)))
        (trial,) = _children(worker.pid)
        until(lambda: _name_of(trial) == HANGING_NAME)
    finally:
        worker.kill()
        worker.wait()
    until(lambda: _name_of(trial) in (None, ""))
    assert list(temporary.iterdir()) == []


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _name_of(pid: int) -> str | None:
    """The name of the process; None if it has ended."""
    try:
        return (
            None
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
            else Path(f"/proc/{pid}/comm").read_text()[:-1]
        )
    except FileNotFoundError:
        return None


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_cannot_start_is_not_the_models_fault() -> None:
    with pytest.raises(ServerError, match="trial process ended with exit status 1"):
        try_models([TrialCase(b"good")], LIMITS, child=(*SCRIPTED, "broken"))
    with pytest.raises(ServerError, match=r"did not finish in 0\.2 s"):
        try_models([TrialCase(b"good")], TrialLimits(start_s=0.2), child=("-c", "import time; time.sleep(600)"))
    with pytest.raises(ServerError, match="printed an invalid verdict"):
        try_models([TrialCase(b"good")], LIMITS, child=("-c", "print('x' * 200_000)"))


# Verdicts


def judge(model: bytes | Path, folder: Path, manifest: Any = None, limits: TrialLimits = LIMITS) -> Verdict:
    path = model if isinstance(model, Path) else folder / "model"
    if isinstance(model, bytes):
        path.write_bytes(model)
    return trial_process.judge(CaseFile(str(path), manifest), limits)[0]


def test_a_damaged_model_is_rejected_with_a_reason(trained: Train, tmp_path: Path) -> None:
    verdict = judge(trained("binary").text.replace(b"left_child", b"left_chi1d"), tmp_path)
    assert not verdict.ok
    assert "'left_chi1d' is unknown" in (verdict.reason or "")
    assert (judge(tmp_path / "none", tmp_path).reason or "").startswith("cannot be read: No such file")


def test_the_manifest_is_tried_with_the_model(pandas_trained: PandasTrained, tmp_path: Path) -> None:
    rows: list[Any] = [{"distance": 1, "carrier": "AA", "gate": 5, "night": True, "factor": None, "delay": 0.5}]
    manifest = manifest_of(pandas_trained.text, "m", 1, {"warmup": rows})
    assert judge(pandas_trained.text, tmp_path, manifest) == Verdict(True, None, 1)
    rows[0]["carrier"] = "XX"
    verdict = judge(pandas_trained.text, tmp_path, msgspec.structs.replace(manifest, warmup=rows))
    assert verdict.reason == "row 0, feature 'carrier' is not one of its 5 categories"
    assert judge(
        pandas_trained.text, tmp_path, msgspec.structs.replace(manifest, warmup=[[1, "B6", 3, None, 0.5, 2]])
    ).ok
    verdict = judge(pandas_trained.text, tmp_path, msgspec.structs.replace(manifest, warmup=[{}, []]))
    assert "warmup is not a list of rows" in (verdict.reason or "")
    verdict = judge(pandas_trained.text, tmp_path, msgspec.structs.replace(manifest, sha256="0" * 64))
    assert "sha256" in (verdict.reason or "")
    verdict = judge(pandas_trained.text, tmp_path, msgspec.structs.replace(manifest, features=[Feature("other")]))
    assert "'other'" in (verdict.reason or "")


def test_a_model_must_predict_finite_values(trained: Train, tmp_path: Path) -> None:
    text = trained("poisson").text
    huge = b" ".join([b"9e2"] * 7)
    lines = [b"leaf_value=" + huge if line.startswith(b"leaf_value=") else line for line in text.split(b"\n")]
    body = b"\n".join(lines)
    starts = [body.index(b"Tree=%d\n" % i) for i in range(4)] + [body.index(b"end of trees")]
    sizes = b" ".join(b"%d" % (end - start) for start, end in pairwise(starts))
    damaged = b"\n".join(b"tree_sizes=" + sizes if line.startswith(b"tree_sizes=") else line for line in lines)
    assert judge(damaged, tmp_path).reason == "predicts a value that is not finite"


def test_a_library_that_runs_out_of_memory(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise InternalError("LGBM_BoosterLoadModelFromString: std::bad_alloc")

    monkeypatch.setattr(lightgbm_format, "LightGBMRuntime", no_memory)
    path = tmp_path / "model"
    path.write_bytes(trained("binary").text)
    verdict, out_of_memory = trial_process.judge(CaseFile(str(path)), LIMITS)
    assert verdict == Verdict(False, "needs more than 1.5 GiB of memory")
    assert out_of_memory


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model").open("wb") as file:
        file.truncate(2**40)
    assert "at most" in (judge(tmp_path / "model", tmp_path).reason or "")


def test_real_crashes_of_lightgbm_end_in_verdicts(trained: Train) -> None:
    text = trained("binary").text
    damaged: Sequence[bytes] = [
        text[: len(text) // 3],
        text.replace(b"num_leaves=7", b"num_leaves=700000"),
        text.replace(b"left_child=", b"left_child=2000000000 "),
        text.replace(b"split_feature=", b"split_feature=1999999999 "),
        text.replace(b"num_tree_per_iteration=1", b"num_tree_per_iteration=0"),
        text,
    ]
    verdicts = try_models(
        [TrialCase(model) for model in damaged],
        TrialLimits(wall_s=5, cpu_s=1),
        child=("-m", "tests.unit.streams.models.unchecked_trial"),
    )
    assert [verdict.ok for verdict in verdicts] == [False] * 5 + [True]
    assert any("SIG" in (verdict.reason or "") for verdict in verdicts)
