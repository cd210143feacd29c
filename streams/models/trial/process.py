"""The process started by `trial.py`: loads each model of a plan, runs it once, and prints one verdict per line.

A first line says that it has started. The limits apply to each model separately, except for memory: a process that runs
out of memory ends with `UNFINISHED_STATUS`, and another one continues with the plan.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from inferd.schemas.errors import InvalidValueError, ModelServingError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.models import Manifest
from inferd.schemas.requests import (
    OUTPUTS,
    InputData,
    ListRows,
    NamedRows,
)
from inferd.streams.inference import (
    Inputs,
    ModelFile,
    TrialLimits,
    compile_postprocess,
    complete_file,
    concatenate,
    format_named,
    is_equal_alone,
    load_model,
    load_runtime,
    manifest_of,
    read_model,
    recognise,
    reconcile,
    scores_batches,
    use_kernels,
)
from inferd.streams.inference.features import FeatureSchema, sample_inputs, varied_inputs
from inferd.streams.models.memory import used_bytes
from inferd.streams.models.trial.confinement import die_with, give_up_processes_and_network, lower_priority
from inferd.streams.openmp import load_openmp

UNFINISHED_STATUS = 75
LOADS = 2
"""Of a model whose memory is measured: for its trial, and again."""
_OPEN_FILES_MAX = 64
_SNIFFED_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: why a model failed. `values`: number of values in the prediction for one row. `batching`: whether rows
    have the same bits alone and in a batch."""

    ok: bool
    reason: str | None = None
    values: int = 0
    batching: bool = True
    resident_bytes: int = 0
    """Memory that a loaded copy takes; 0 unless it was measured."""


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One model of a plan."""

    path: str
    manifest: Manifest | None = None


class Plan(msgspec.Struct, frozen=True):
    """The plan for a trial process, as JSON."""

    parent: int
    """The process that waits for the verdicts: this one ends with it."""
    limits: TrialLimits
    cases: list[CaseFile]
    kernels: bool = True
    """Whether kernels score the models, as in the process that waits."""
    measure: bool = False
    """Whether to measure the memory that each model takes."""


def main(arguments: Sequence[str]) -> int:
    """Runs the plan in the file named on the command line; returns the exit status."""
    plan = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Plan)
    die_with(plan.parent)
    use_kernels(plan.kernels)
    out = _own_stdout()
    # Before memory is limited: a library that fails to load is not the fault of a model.
    _load_libraries(plan.cases)
    gc.freeze()  # so that measuring only collects garbage of models
    lower_priority()
    _confine(plan)
    give_up_processes_and_network()
    os.write(out, b"{}\n")
    for case in plan.cases:
        _allow_cpu(plan.limits.cpu_s)
        verdict, out_of_memory = judge(case, plan.limits)
        if verdict.ok and plan.measure:
            verdict = _measured(verdict, case, plan.limits)
        os.write(out, msgspec.json.encode(verdict) + b"\n")
        if out_of_memory:
            return UNFINISHED_STATUS
    return 0


def judge(case: CaseFile, limits: TrialLimits) -> tuple[Verdict, bool]:
    """The verdict on a model, and whether its trial ran out of memory."""
    try:
        return try_model(case, limits.sizes), False
    except MemoryError:
        out_of_memory, reason = True, ""
    except ModelServingError as error:
        # The library may catch std::bad_alloc itself, and report it in its message.
        out_of_memory, reason = "bad_alloc" in error.message, error.message
    except OSError as error:
        out_of_memory, reason = False, f"cannot be read: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001  # whatever a library raises is the verdict on its model
        out_of_memory, reason = False, f"raises {type(error).__name__}: {error}"
    if out_of_memory:
        reason = f"needs more than {limits.memory_bytes / 2**30:.2g} GiB of memory"
    return Verdict(False, reason), out_of_memory


def _measured(verdict: Verdict, case: CaseFile, limits: TrialLimits) -> Verdict:
    """The verdict with the memory that the model needs; a failed verdict if it cannot be loaded again."""
    _allow_cpu(limits.cpu_s)
    try:
        return replace(verdict, resident_bytes=measure(case, limits.sizes))
    except Exception as error:  # noqa: BLE001  # whatever a library raises is the verdict on its model
        return Verdict(False, f"cannot be loaded a second time: {type(error).__name__}: {error}")


def measure(case: CaseFile, limits: Limits) -> int:
    """The bytes by which a second loaded copy grows the process; memory shared by all models was allocated in the
    trial.

    Allocated bytes are exact. Resident bytes may be too low, because a copy reuses freed memory first, but for a
    library with its own allocator there is no other measure.
    """
    assert case.manifest is not None
    before = used_bytes()
    model = load_model(Path(case.path), case.manifest, 1, limits)
    after = used_bytes()
    del model
    return max(1, *(now - then for now, then in zip(after, before, strict=True)))


def try_model(case: CaseFile, limits: Limits) -> Verdict:
    """Reads, loads and runs a model; returns its verdict, or raises its error."""
    path = Path(case.path)
    if (size := path.stat().st_size) > limits.artifact_bytes_max:
        raise TooLargeError(f"model file of {size} bytes: at most {limits.artifact_bytes_max} are allowed")
    model = path.read_bytes()
    file = read_model(model, limits, case.manifest.runtime if case.manifest else None)
    manifest = reconcile(case.manifest or manifest_of(model, "trial", 1, file=file), file)
    file = complete_file(file, manifest)
    runtime = load_runtime(model, file, 1)
    outputs = tuple(output for output in (*OUTPUTS, *file.output_names) if runtime.supports(output))
    rows = _rows(manifest, file)
    arrays = runtime.predict(rows, outputs)
    postprocessor = compile_postprocess(manifest)
    if postprocessor.check({"prediction": arrays["prediction"]}) is not None:
        raise InvalidValueError("predicts a value that is not finite")
    postprocessor.columns(arrays, outputs)
    values = arrays["prediction"].size // len(arrays["prediction"])
    varied = concatenate([varied_inputs(file.features), rows])
    return Verdict(True, None, values, scores_batches(runtime) and is_equal_alone(runtime, varied, outputs))


def _load_libraries(cases: Sequence[CaseFile]) -> None:
    """Loads the libraries of the formats in the plan. One that cannot be loaded fails its models in their trial."""
    load_openmp()
    for case in cases:
        with suppress(ModelServingError):
            named = case.manifest is not None and format_named(case.manifest.runtime)
            (named or recognise(_sniffed(case))).load_library()


def _sniffed(case: CaseFile) -> bytes:
    """The first and last bytes of a file: some formats are recognised by their end."""
    with suppress(OSError), Path(case.path).open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _SNIFFED_BYTES))
        return head + file.read(_SNIFFED_BYTES)
    return b""


def _rows(manifest: Manifest, file: ModelFile) -> Inputs:
    """The manifest's warm-up rows; without them, a row of missing values and a row of zeros."""
    if manifest.warmup:
        return FeatureSchema(manifest, file.features).inputs(warmup_rows(manifest.warmup))
    return sample_inputs(file.features)


def warmup_rows(warmup: Sequence[Any]) -> InputData:
    """Decodes the warm-up rows of a manifest like those of a request: all are lists, or all are maps."""
    for kind in (list[list[float | int | bool | str | None]], list[dict[str, float | int | bool | str | None]]):
        try:
            rows: Any = msgspec.convert(warmup, kind)
        except msgspec.ValidationError:
            continue
        return ListRows(rows, False) if isinstance(rows[0], list) else NamedRows(rows, False)
    raise InvalidValueError(
        "manifest: warmup is not a list of rows, each a list of values or a map of features to values"
    )


def _own_stdout() -> int:
    """Reserves standard output for verdicts; what the library prints goes to standard error."""
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def _confine(plan: Plan) -> None:
    import resource

    # Each case may have a descriptor, which was open before.
    files = _OPEN_FILES_MAX + len(plan.cases)
    memory = plan.limits.memory_bytes

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _allow_cpu(cpu_s: float) -> None:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Whole seconds, rounded up: the limit takes effect at most one second late.
    soft = int(usage.ru_utime + usage.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
