"""A run over all targets with every method of generating inputs, within limits, and its outcome."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import guided
from tests.fuzz.child import COUNTS, FINDING, HANG_S, LAST_INPUT, read_last_input
from tests.fuzz.corpus import keep
from tests.fuzz.target import Target

SHARES = {"drawn": 0.01, "guided": 0.09, "mutated": 0.9}
"""Of the inputs of a target; the time is shared evenly."""
SHARES_UNGUIDED = {"drawn": 0.01, "mutated": 0.99}
START_S, SECONDS_MIN = 1.0, 1.0
SHORT_S = 4.0
"""With less time per step, all of it is spent on the method without start-up time."""
GRACE_S = 60.0
TAIL_CHARS = 3_000


@dataclass(frozen=True)
class Bounds:
    """The limits of a run: number of inputs or time, whichever is reached first."""

    inputs: int
    seconds: float
    workers: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """One target in one way."""

    target: Target
    way: str
    inputs: int


@dataclass
class Account:
    """The outcome for a target, or for all of them."""

    inputs: Counter[str] = field(default_factory=Counter)
    """By the way they were made."""
    said: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    grown_bytes: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


def run(targets: list[Target], bounds: Bounds, directory: Path, say: Callable[[str], None]) -> dict[str, Account]:
    """Fuzzes each target with each method, sequentially or with several workers."""
    accounts = {target.name: Account() for target in targets}
    steps = list(_steps(targets, bounds))
    deadline = time.monotonic() + bounds.seconds
    left = len(steps)

    def take(step: Step) -> None:
        nonlocal left
        if time.monotonic() > deadline:
            say(f"{step.target.name} {step.way}: no time is left")
            return
        # Unused time of a step goes to the others; starting its process takes some of it.
        seconds = (deadline - time.monotonic()) / max(1, left) * bounds.workers - START_S
        left -= 1
        _run_step(step, max(seconds, SECONDS_MIN), bounds.seed, directory, accounts[step.target.name])
        say(f"{step.target.name} {step.way}: {accounts[step.target.name].inputs[step.way]:,} inputs")

    with ThreadPoolExecutor(bounds.workers) as pool:
        list(pool.map(take, steps))
    return accounts


def _steps(targets: list[Target], bounds: Bounds) -> Iterator[Step]:
    """Fast targets last: they can use the time that the slow ones leave."""
    weight = sum(target.weight for target in targets)
    shares = SHARES if guided.available() else SHARES_UNGUIDED
    if bounds.seconds * bounds.workers < SHORT_S * len(shares) * len(targets):
        shares = {"mutated": 1.0}
    for way, share in shares.items():
        for target in sorted(targets, key=lambda target: target.weight):
            yield Step(target, way, int(bounds.inputs * target.weight / weight * share) + 1)


def _run_step(step: Step, seconds: float, seed: int, directory: Path, account: Account) -> None:
    place = directory / step.target.name / step.way
    place.mkdir(parents=True, exist_ok=True)
    for name in (COUNTS, FINDING, LAST_INPUT):
        (place / name).unlink(missing_ok=True)
    options = ["--inputs", str(step.inputs), "--seconds", f"{seconds:.1f}", "--seed", str(seed)]
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.child",
        step.target.name,
        step.way,
        *options,
        "--directory",
        str(place),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds + HANG_S + GRACE_S, check=False)
        code, tail = done.returncode, (done.stdout + done.stderr).decode(errors="replace")[-TAIL_CHARS:]
    except subprocess.TimeoutExpired:
        code, tail = -1, "it hangs, and does not even notice"
    _count(place / COUNTS, step.way, account)
    if code != 0:
        _keep_finding(step, place, f"exit code {code}: {tail}", account)


def _count(path: Path, way: str, account: Account) -> None:
    if not path.exists():
        return
    counts = json.loads(path.read_text())
    account.inputs[way] += counts["inputs"]
    account.said.update(counts["said"])
    account.slowest_s = max(account.slowest_s, counts["slowest_s"])
    account.grown_bytes = max(account.grown_bytes, counts["grown_bytes"])
    account.seconds += counts["seconds"]


def _keep_finding(step: Step, place: Path, end: str, account: Account) -> None:
    """Adds the input to the corpus, which `make test` replays."""
    finding = place / FINDING
    reason = finding.read_text() if finding.exists() else end
    last = place / LAST_INPUT
    data = read_last_input(last) if last.exists() else b""
    keep(step.target.name, [data], f"found ({step.way}): {reason.strip().splitlines()[-1][:200]}")
    account.findings.append(f"{step.target.name}, {step.way}: {data[:200]!r}\n{reason}")


def table(accounts: dict[str, Account]) -> str:
    """The account as text, a target a line."""
    head = f"{'target':26}{'inputs':>12}{'drawn':>9}{'guided':>11}{'mutated':>12}{'accepted':>10}  codes"
    lines = [head]
    total: Counter[str] = Counter()
    for name, account in accounts.items():
        total += account.inputs
        accepted = account.said["accepted"] / max(1, account.said.total())
        lines.append(
            f"{name:26}{account.inputs.total():>12,}{account.inputs['drawn']:>9,}{account.inputs['guided']:>11,}"
            f"{account.inputs['mutated']:>12,}{accepted:>10.1%}  {len(account.said.keys() - {'accepted'})}"
            f"   slowest {1e3 * account.slowest_s:.0f} ms, memory +{account.grown_bytes / 2**20:.0f} MiB"
        )
    lines.append(
        f"{'all':26}{total.total():>12,}{total['drawn']:>9,}{total['guided']:>11,}{total['mutated']:>12,}"
        f"   findings: {sum(len(account.findings) for account in accounts.values())}"
    )
    return "\n".join(lines)
