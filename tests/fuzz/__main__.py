"""`make fuzz`: limited by FUZZ_MINUTES (5) and FUZZ_INPUTS (no limit); exit code 1 if it found a failure."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from inferd.streams.inference import kernels_fault
from tests.fuzz.batch_kernel import fuzz_batch_kernel
from tests.fuzz.campaign import Bounds, run, table
from tests.fuzz.envelope_kernel import fuzz_envelope_kernel
from tests.fuzz.histogram_kernel import fuzz_histogram_kernel
from tests.fuzz.record_kernel import fuzz_record_kernel
from tests.fuzz.result_kernel import fuzz_result_kernel
from tests.fuzz.row_kernel import fuzz_row_kernel
from tests.fuzz.targets import all_targets
from tests.fuzz.tree_kernel import fuzz_tree_kernel

UNBOUNDED = 10**12
KERNELS = (
    fuzz_tree_kernel, fuzz_row_kernel, fuzz_record_kernel, fuzz_envelope_kernel, fuzz_batch_kernel, fuzz_result_kernel,
    fuzz_histogram_kernel,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("FUZZ_MINUTES") or 5))
    parser.add_argument("--inputs", type=int, default=int(os.environ.get("FUZZ_INPUTS") or UNBOUNDED))
    parser.add_argument("--workers", type=int, default=int(os.environ.get("FUZZ_WORKERS") or 1))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or 0))
    parser.add_argument("--target", action="append", choices=all_targets(), help="only this one; may be repeated")
    parser.add_argument("--directory", type=Path, help="keep the inputs that reached new code there")
    chosen = parser.parse_args()
    targets = [target for name, target in all_targets().items() if name in (chosen.target or all_targets())]
    bounds = Bounds(chosen.inputs, 60 * chosen.minutes, chosen.workers, chosen.seed)
    with tempfile.TemporaryDirectory(prefix="inferd-fuzz-") as directory:
        place = chosen.directory or Path(directory)
        accounts = run(targets, bounds, place, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(accounts))
    if not chosen.target:
        print(_kernels(0.05 * bounds.seconds, chosen.seed, bounds.inputs))
    findings = [finding for account in accounts.values() for finding in account.findings]
    print(*findings, sep="\n\n")
    return 1 if findings else 0


def _kernels(seconds: float, seed: int, rounds: int) -> str:
    """Compares the kernels with their references; returns a summary, and raises on a difference."""
    if (fault := kernels_fault()) is not None:
        return f"kernels: {fault}"
    return "\n".join(fuzz(seconds / len(KERNELS), seed, rounds) for fuzz in KERNELS)


if __name__ == "__main__":
    sys.exit(main())
